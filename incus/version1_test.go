package incus

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/sandbox"
)

// Sandboxes whose keys were written by the version that the testdata is from are read as what they are: a base that was
// restored once, what it was before that, and a copy that was stopped.
func TestKeysOfTheFirstVersionAreRead(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "instances-version1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []api.Instance
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	all := map[string]*known{}
	for _, i := range list {
		all[i.Name] = &known{i}
	}
	at := func(text string) time.Time {
		t.Helper()
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	limits := sandbox.Limits{CPU: 2, Memory: 256 << 20, Disk: 2 << 30, Processes: 4096}
	const before = "pixels-eb7d3bd9d38a"
	for _, want := range []sandbox.Sandbox{
		{
			ID: "pixels-2f25a31922fb", Name: "base", Owner: "hand", From: "pixels/base", State: sandbox.Running, Address: "10.66.2.19", Egress: egress.Agent,
			Labels: map[string]string{"role": "base", "team": "a"}, CreatedAt: at("2026-11-30T08:32:37.986556903Z"), ExpiresAt: at("2026-12-01T08:32:37Z"), Lineage: before, Limits: limits,
		},
		{
			ID: "pixels-66ef549febd1", Name: "copy", Owner: "hand", From: "base:ready", State: sandbox.Stopped, Egress: egress.Agent,
			Labels: map[string]string{}, CreatedAt: at("2026-11-30T08:32:38.690229963Z"), ExpiresAt: at("2026-12-01T08:32:38Z"), Lineage: before, Limits: limits,
		},
	} {
		found := claimsIn(all, "hand", want.Name)
		if len(found) != 1 {
			t.Errorf("%d instances are %s", len(found), want.Name)
			continue
		}
		if diff := cmp.Diff(want, describe(&found[0]), cmpopts.IgnoreFields(sandbox.Sandbox{}, "Reach", "Rules")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Name, diff)
		}
	}
	if shown(all[before].Instance, all) {
		t.Error("what was before the restore is a sandbox of its own")
	}
	_, own, err := egressOf(all["pixels-2f25a31922fb"].Config)
	if err != nil || len(own) != 2 || own[0].Rule.String() != "example.com:443" || !own[0].Until.Equal(time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)) || !own[1].Deny {
		t.Errorf("its rules: %+v, %v", own, err)
	}
	if env := envOf(all["pixels-2f25a31922fb"].Config); len(env) != 1 || env["A"] != "1" {
		t.Errorf("its environment: %v", env)
	}
}
