package manager

import (
	"context"
	"errors"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// Rename gives a sandbox another name. What asked for it goes on to, under the new one.
func (m *Manager) Rename(ctx context.Context, caller Caller, name, to string) (sandbox.Sandbox, error) {
	c := m.begin(caller)
	if err := sandbox.CheckName(to); err != nil {
		return sandbox.Sandbox{}, err
	}
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbRenameSandbox, Owner: c.Owner, Sandbox: name}, name)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	// First, and kept whatever comes: that a human took its network must hold under either name, also when this ends half-way.
	by, err := c.gate.store.CutBy(s.Owner, s.Name, s.CreatedAt)
	if err == nil && by != "" {
		err = c.gate.store.Cut(s.Owner, to, s.CreatedAt, by)
	}
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	if err := b.on(ctx, s, func(id string) error { return b.Rename(ctx, id, to) }); err != nil {
		return sandbox.Sandbox{}, err
	}
	if err := c.gate.store.Renamed(s.Owner, s.Name, to, s.CreatedAt); err != nil {
		return sandbox.Sandbox{}, err
	}
	if s.Owner != c.Owner {
		to = s.Owner + "/" + to
	}
	return c.get(ctx, c.Owner, to)
}

// Resize changes the limits of a sandbox that are not zero.
func (m *Manager) Resize(ctx context.Context, caller Caller, name string, l sandbox.Limits) (sandbox.Sandbox, error) {
	c := m.begin(caller)
	if l == (sandbox.Limits{}) {
		return sandbox.Sandbox{}, fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "nothing to change: give cpu, memory or disk; none is invalid")
	}
	if err := checkLimits(l); err != nil {
		return sandbox.Sandbox{}, err
	}
	s, err := c.get(ctx, c.Owner, name)
	if err != nil && !(c.supposed(err) && errors.Is(err, sandbox.ErrNotFound)) {
		return sandbox.Sandbox{}, err
	}
	more := policy.Needs{CPU: max(0, l.Or(s.Limits).CPU-s.Limits.CPU), Memory: max(0, l.Or(s.Limits).Memory-s.Limits.Memory), Disk: max(0, l.Or(s.Limits).Disk-s.Limits.Disk)}
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbResizeSandbox, Owner: c.Owner, Sandbox: name, Needs: more})
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	defer b.done()
	if err := b.on(ctx, s, func(id string) error { return b.Resize(ctx, id, l) }); err != nil {
		return sandbox.Sandbox{}, err
	}
	return c.get(ctx, c.Owner, name)
}
