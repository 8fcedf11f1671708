package manager_test

import (
	"errors"
	"testing"
	"time"

	"pixels/policy"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// What a command reads may be commands: who may wait and not run any gives it nothing, and ends nothing by a signal.
func TestWhoMayNotRunCommandsFeedsNone(t *testing.T) {
	m := newManager()
	alice := manager.Agent("alice")
	if _, err := m.Create(t.Context(), alice, manager.CreateRequest{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	id, err := m.StartRun(t.Context(), alice, manager.ExecRequest{Name: "box", Shell: "read -r line; echo got $line", Open: true})
	if err != nil {
		t.Fatal(err)
	}
	watcher := alice
	watcher.Caps = &policy.Caps{Holder: "alice", Limits: policy.Limits{Tools: &[]policy.Verb{policy.VerbWait}}}
	for _, f := range []sandbox.Feed{{Stdin: "a command\n"}, {Signal: "KILL"}} {
		if _, err := m.WaitRun(t.Context(), watcher, manager.WaitRequest{ID: id, Feed: f}); !errors.Is(err, sandbox.ErrDenied) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if got, err := m.WaitRun(t.Context(), watcher, manager.WaitRequest{ID: id}); err != nil || got.State != sandbox.RunRunning {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := m.WaitRun(t.Context(), manager.Agent("bob"), manager.WaitRequest{ID: id, Feed: sandbox.Feed{Stdin: "x\n"}}); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("another owner: %v", err)
	}
	if got, err := m.WaitRun(t.Context(), alice, manager.WaitRequest{ID: id, Wait: 10 * time.Second, Feed: sandbox.Feed{Stdin: "it\n"}}); err != nil || got.Stdout != "got it\n" {
		t.Errorf("%+v, %v", got, err)
	}
}
