package manager

import (
	"context"
	"fmt"
	"time"

	"pixels/internal/fault"
	"pixels/internal/units"
	"pixels/policy"
	"pixels/sandbox"
)

// SetState starts, stops or pauses a sandbox, and returns it when it is so.
func (m *Manager) SetState(ctx context.Context, caller Caller, name string, state sandbox.State) (sandbox.Sandbox, error) {
	c := m.begin(caller)
	switch state {
	case sandbox.Running, sandbox.Stopped, sandbox.Paused:
	default:
		return sandbox.Sandbox{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("state %s", sandbox.Quote(string(state))), "is invalid: give %s, %s or %s", sandbox.Running, sandbox.Stopped, sandbox.Paused)
	}
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbSetSandboxState, Owner: c.Owner, Sandbox: name}, name)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	if err := b.on(ctx, s, func(id string) error { return b.SetState(ctx, id, state) }); err != nil {
		return sandbox.Sandbox{}, err
	}
	return c.get(ctx, c.Owner, name)
}

// Extend moves the end of a sandbox's lease to ttl from now. It may come sooner than before.
func (m *Manager) Extend(ctx context.Context, caller Caller, name string, ttl time.Duration) (sandbox.Sandbox, error) {
	c := m.begin(caller)
	at, err := c.expiry(ttl)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	b, s, err := c.vettedBegun(ctx, policy.Call{Verb: policy.VerbExtendSandbox, Owner: c.Owner, Sandbox: name, Needs: policy.Needs{Lease: time.Until(at)}}, name)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	if err := b.on(ctx, s, func(id string) error { return b.SetExpiry(ctx, id, at) }); err != nil {
		return sandbox.Sandbox{}, err
	}
	return c.begun(ctx, c.Owner, name)
}

// expiry is when a lease of ttl ends; 0 means the default one. Times are kept in whole seconds.
func (c *call) expiry(ttl time.Duration) (time.Time, error) {
	if ttl == 0 {
		ttl = c.defaults.Lease
	}
	if ttl < sandbox.MinTTL || ttl > c.defaults.MaxLease {
		return time.Time{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("ttl %s", units.Duration(ttl)), "is invalid: give %s to %s", units.Duration(sandbox.MinTTL), units.Duration(c.defaults.MaxLease))
	}
	return time.Now().Add(ttl).UTC().Truncate(time.Second), nil
}
