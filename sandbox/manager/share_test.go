package manager_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pixels/egress"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

func TestOnlyWhatThePolicySharesIsAnothersToUse(t *testing.T) {
	m := manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.None, Policy: sandboxtest.Policy(t, "[owners.ci.share]\nwith = [\"alice\"]")})
	for _, owner := range []string{"ci", "alice", "bob"} {
		if _, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "box"}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.CreateCheckpoint(t.Context(), manager.Agent(owner), "box", "one", ""); err != nil {
			t.Fatal(err)
		}
	}
	list, err := m.List(t.Context(), manager.Agent("alice"), manager.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names [][2]string
	for _, s := range list.Sandboxes {
		names = append(names, [2]string{s.Owner, s.Name})
	}
	if diff := cmp.Diff([][2]string{{"alice", "box"}, {"ci", "ci/box"}}, names); diff != "" {
		t.Errorf("owners and names (-want +got):\n%s", diff)
	}
	if list, err := m.List(t.Context(), manager.Agent("alice"), manager.ListRequest{After: "box"}); err != nil || len(list.Sandboxes) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := m.List(t.Context(), manager.Agent("ci"), manager.ListRequest{}); err != nil || len(list.Sandboxes) != 1 {
		t.Errorf("who shares sees others': %+v, %v", list, err)
	}
	if got, err := m.Exec(t.Context(), manager.Agent("alice"), manager.ExecRequest{Name: "ci/box", Shell: "echo hi"}); err != nil || got.Stdout != "hi\n" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := m.Clone(t.Context(), manager.Agent("alice"), manager.CloneRequest{Source: "ci/box:one"}); err != nil || got[0].Err != nil || got[0].Sandbox.Owner != "alice" {
		t.Errorf("%+v, %v", got, err)
	}
	// What isn't shared is not there, in whatever way it is named.
	for what, do := range map[string]func() error{
		"exec": func() error {
			_, err := m.Exec(t.Context(), manager.Agent("alice"), manager.ExecRequest{Name: "bob/box", Shell: "true"})
			return err
		},
		"read": func() error {
			_, err := m.ReadFile(t.Context(), manager.Agent("alice"), manager.ReadRequest{Name: "bob/box", Path: "/etc/hostname"})
			return err
		},
		"clone": func() error {
			_, err := m.Clone(t.Context(), manager.Agent("alice"), manager.CloneRequest{Source: "bob/box:one"})
			return err
		},
		"copy": func() error {
			_, err := m.Create(t.Context(), manager.Agent("alice"), manager.CreateRequest{From: "bob/box:one"})
			return err
		},
		"the way back": func() error {
			_, err := m.Exec(t.Context(), manager.Agent("ci"), manager.ExecRequest{Name: "alice/box", Shell: "true"})
			return err
		},
		"two owners": func() error {
			_, err := m.Exec(t.Context(), manager.Agent("alice"), manager.ExecRequest{Name: "ci/bob/box", Shell: "true"})
			return err
		},
	} {
		if err := do(); !errors.Is(err, sandbox.ErrNotFound) && !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if d, err := m.Destroy(t.Context(), manager.Agent("alice"), []string{"bob/box", "ci/box"}); err != nil || len(d.Missing) != 1 || d.Missing[0] != "bob/box" || len(d.Gone) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if list, err := m.List(t.Context(), manager.Agent("bob"), manager.ListRequest{}); err != nil || len(list.Sandboxes) != 1 {
		t.Errorf("bob's is %+v, %v", list, err)
	}
	if _, err := m.Create(t.Context(), manager.Agent("alice"), manager.CreateRequest{Name: "ci/new"}); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("made for another: %v", err)
	}
}
