package manager_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pixels/egress"
	"pixels/policy"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// Where the pool charges no sandbox for its checkpoints, each counts against the owner's disk.
func TestCheckpointsCountAgainstTheDisk(t *testing.T) {
	at := filepath.Join(t.TempDir(), "policy.toml")
	if err := os.WriteFile(at, []byte("[quota]\ndisk = \"3GiB\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := policy.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	b := sandboxtest.NewMemory()
	b.Cost = 900 << 20
	m := manager.New(b, manager.Defaults{Policy: p, Image: sandboxtest.Image, Egress: egress.None, Limits: sandbox.Limits{Disk: 1 << 30}})
	if _, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"one", "two"} {
		if _, err := m.CreateCheckpoint(t.Context(), manager.Agent(owner), "box", label, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.CreateCheckpoint(t.Context(), manager.Agent(owner), "box", "three", ""); !errors.Is(err, sandbox.ErrDenied) || !strings.Contains(err.Error(), "disk") {
		t.Errorf("a checkpoint beyond the quota: %v", err)
	}
	if _, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "other"}); !errors.Is(err, sandbox.ErrDenied) {
		t.Errorf("a sandbox beyond the quota: %v", err)
	}
	if err := m.DeleteCheckpoint(t.Context(), manager.Agent(owner), "box", "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateCheckpoint(t.Context(), manager.Agent(owner), "box", "three", ""); err != nil {
		t.Errorf("after one was deleted: %v", err)
	}
}
