package manager

import (
	"context"
	"errors"
	"testing"
	"time"

	"pixels/egress"
	"pixels/policy"
	"pixels/sandbox"
)

// counting is a backend that counts what is made in it, and does nothing else.
type counting struct {
	sandbox.Backend
	made int
}

func (c *counting) List(context.Context, string) ([]sandbox.Sandbox, error)       { return nil, nil }
func (c *counting) Tree(context.Context, string, bool) ([]sandbox.Sandbox, error) { return nil, nil }
func (c *counting) Get(context.Context, string, string) (sandbox.Sandbox, error) {
	return sandbox.Sandbox{}, sandbox.ErrNotFound
}

func (c *counting) Create(_ context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	c.made++
	return sandbox.Sandbox{Name: spec.Name}, nil
}

func (c *counting) CreateCheckpoint(context.Context, string, string, string) (sandbox.Checkpoint, error) {
	c.made++
	return sandbox.Checkpoint{}, nil
}

// A permit makes what was claimed with it, no more, and nothing once its call is done.
func TestAPermitEndsWithItsClaim(t *testing.T) {
	b := &counting{}
	call := New(b, Defaults{}).begin(Agent("me"))
	spec := func(name string) sandbox.Spec {
		return sandbox.Spec{Name: name, Owner: "me", Egress: egress.None, ExpiresAt: time.Now().Add(time.Hour)}
	}
	p, err := call.vet(t.Context(), policy.Call{Verb: policy.VerbCreateSandbox, Owner: "me", Needs: policy.Needs{Sandboxes: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.create(t.Context(), spec("one")); err != nil || b.made != 1 {
		t.Errorf("what was claimed: %v, made %d", err, b.made)
	}
	if _, err := p.create(t.Context(), spec("two")); !errors.Is(err, errUnclaimed) {
		t.Errorf("one more: %v", err)
	}
	if _, err := p.checkpoint(t.Context(), "id", "label", ""); !errors.Is(err, errUnclaimed) {
		t.Errorf("a checkpoint: %v", err)
	}
	p.done()
	if _, err := p.create(t.Context(), spec("three")); !errors.Is(err, errUnclaimed) || b.made != 1 {
		t.Errorf("after the call: %v, made %d", err, b.made)
	}
	p, err = call.vet(t.Context(), policy.Call{Verb: policy.VerbExec, Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.create(t.Context(), spec("four")); !errors.Is(err, errUnclaimed) || b.made != 1 {
		t.Errorf("by a permit that claims nothing: %v, made %d", err, b.made)
	}
}

// A call is judged by the policy that was in force when it began, to its end.
func TestACallIsJudgedByOnePolicy(t *testing.T) {
	p, err := policy.Fixed("[tools]\noff = [\"exec\"]")
	if err != nil {
		t.Fatal(err)
	}
	m := New(&counting{}, Defaults{Policy: p})
	call := m.begin(Agent("me"))
	m.gate.policy = policy.Shipped() // as if the file had changed
	if _, err := call.vet(t.Context(), policy.Call{Verb: policy.VerbExec, Owner: "me"}); !errors.Is(err, sandbox.ErrDenied) {
		t.Errorf("a call that began before: %v", err)
	}
	if _, err := m.begin(Agent("me")).vet(t.Context(), policy.Call{Verb: policy.VerbExec, Owner: "me"}); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// A trial says the verdict also over a sandbox that there is not; the call itself says that it isn't there.
func TestATrialMaySupposeASandbox(t *testing.T) {
	p, err := policy.Fixed("[exec]\nroot = false")
	if err != nil {
		t.Fatal(err)
	}
	m := New(&counting{}, Defaults{Policy: p})
	caller := Agent("me")
	if _, err := m.Exec(t.Context(), caller, ExecRequest{Name: "nobody", Shell: "id", User: "root"}); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("the call: %v", err)
	}
	caller.Trial = true
	var trial Trial
	if _, err := m.Exec(t.Context(), caller, ExecRequest{Name: "nobody", Shell: "id", User: "root"}); !errors.As(err, &trial) || trial.Decision != policy.Deny {
		t.Errorf("the trial: %v", err)
	}
	if _, err := m.Egress(t.Context(), caller, "nobody"); !errors.As(err, &trial) || trial.Decision != policy.Allow {
		t.Errorf("the trial of what is allowed: %v", err)
	}
}
