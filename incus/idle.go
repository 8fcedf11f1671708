package incus

import (
	"context"
	"errors"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress/gateway"
	"pixels/internal/fault"
	"pixels/sandbox"
)

// A sandbox that nobody uses is stopped, and started again when it is used. When it was used last stands in a key, so that all servers
// agree. Who is about to use one renews the key first, and who is about to stop one writes another key: of two who do so at once the
// later one sees what the other has written, and gives way.
const (
	usedKey = "user.pixels.used" // when it was used last, RFC 3339; written now and then
	idleKey = "user.pixels.idle" // "true" once it is to be stopped, or was, because it was not used
	// overKey is when the lease was over of a sandbox that was stopped for that, RFC 3339.
	overKey = "user.pixels.over"
)

// usedEvery is how often it is written at most that a sandbox is used.
const usedEvery = 5 * time.Minute

// errAsleep means that an instance is to be stopped, or was, because it was not used.
var errAsleep = errors.New("it was not used, and sleeps")

// Touch implements sandbox.Backend.
func (b *Backend) Touch(ctx context.Context, id string) (asleep bool, err error) {
	k, err := b.cache.instance(ctx, id)
	if err != nil {
		return false, b.failed(err, "note that the sandbox is used")
	}
	if k == nil {
		return false, nil // the call itself says that it is gone
	}
	if k.Config[idleKey] != "" {
		return true, nil
	}
	if b.now().Sub(lastUsed(&k.Instance)) < usedEvery {
		return false, nil
	}
	err = b.change(ctx, id, func(config map[string]string) error {
		if config[idleKey] != "" {
			return errAsleep
		}
		config[usedKey] = b.now().UTC().Format(time.RFC3339)
		return nil
	}, nil)
	switch {
	case errors.Is(err, errAsleep):
		return true, nil
	case full(err), missing(err), errors.Is(err, sandbox.ErrNotFound): // on a full disk a key can't be kept; of what is gone the call itself says so
		return false, nil
	}
	return false, b.failed(err, "note that the sandbox is used")
}

// lastUsed is when an instance was used, as far as its keys say; its start is a use.
func lastUsed(inst *api.Instance) time.Time {
	last := inst.LastUsedAt
	if at, err := time.Parse(time.RFC3339, inst.Config[usedKey]); err == nil && at.After(last) {
		last = at
	}
	if inst.CreatedAt.After(last) {
		last = inst.CreatedAt
	}
	return last
}

// wakeTime bounds how long who stops a sandbox for want of use may take; then it was killed at that.
const wakeTime = 30 * time.Second

// Wake implements sandbox.Backend.
func (b *Backend) Wake(ctx context.Context, id string) error {
	_, err, _ := b.waking.Do(id, func() (any, error) { return nil, b.wake(ctx, id) })
	return err
}

func (b *Backend) wake(ctx context.Context, id string) error {
	for deadline := time.Now().Add(wakeTime); ; {
		inst, _, err := b.server.with(ctx).GetInstance(id)
		if err != nil {
			return b.failed(err, "wake the sandbox")
		}
		switch over := time.Now().After(deadline); {
		case inst.Config[idleKey] == "":
			if describe(inst).State == sandbox.Stopped {
				return notForExec(inst.Config[nameKey], sandbox.Stopped) // somebody else woke and stopped it
			}
			return nil
		case inst.StatusCode == api.Stopped || over:
			err := b.SetState(ctx, id, sandbox.Running)
			if err == nil || over || ctx.Err() != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// awake removes what says that a sandbox sleeps. What can't be written on a full disk is written by the next one who looks.
func (b *Backend) awake(ctx context.Context, id string, config map[string]string) error {
	if config[idleKey] == "" {
		return nil
	}
	err := b.change(ctx, id, func(config map[string]string) error {
		delete(config, idleKey)
		config[usedKey] = b.now().UTC().Format(time.RFC3339)
		return nil
	}, nil)
	if full(err) {
		return nil
	}
	return err
}

// stopIdle stops a sandbox that seems not to have been used for so long, unless it is used all the same, and tells whether it did.
func (b *Backend) stopIdle(ctx context.Context, inst *api.Instance, idle time.Duration) (bool, error) {
	busy, err := b.inUse(ctx, inst)
	if err != nil {
		return false, err
	}
	if busy {
		_, err := b.Touch(ctx, inst.Name)
		return false, err
	}
	err = b.change(ctx, inst.Name, func(config map[string]string) error {
		now := api.Instance{InstancePut: api.InstancePut{Config: config}, CreatedAt: inst.CreatedAt, LastUsedAt: inst.LastUsedAt}
		if config[goingKey] != "" || b.now().Sub(lastUsed(&now)) < idle {
			return sandbox.ErrState // it was used meanwhile
		}
		config[idleKey] = "true"
		return nil
	}, nil)
	if errors.Is(err, sandbox.ErrState) || missing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := b.stop(ctx, inst.Name, false); err != nil {
		return false, err
	}
	return true, b.unplug(ctx, inst.Name)
}

// inUse tells whether a sandbox is used by something that makes no calls: a command in the background, somebody at a console, or a
// connection.
func (b *Backend) inUse(ctx context.Context, inst *api.Instance) (bool, error) {
	if wired(inst.Config) {
		reply, err := b.wiresOf(inst.Config).ask(ctx, gateway.Request{Op: gateway.Status, Sandbox: inst.Name})
		if err != nil && !errors.Is(err, gateway.ErrNoSandbox) {
			return false, err
		}
		if err == nil && reply.Open > 0 {
			return true, nil
		}
	}
	runs, err := b.Runs(ctx, inst.Name)
	if err != nil {
		return false, err
	}
	for _, r := range runs {
		if r.State == sandbox.RunRunning {
			return true, nil
		}
	}
	for _, user := range []string{sandbox.DefaultUser, "root"} {
		sessions, err := b.Sessions(ctx, inst.Name, user)
		if errors.Is(err, sandbox.ErrNotFound) { // an image without the user
			continue
		}
		if err != nil {
			return false, err
		}
		for _, s := range sessions {
			if s.Attached > 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

// endLease stops a sandbox whose lease is over, and notes since when. It returns sandbox.ErrState when it was extended meanwhile.
func (b *Backend) endLease(ctx context.Context, inst *api.Instance) error {
	err := b.change(ctx, inst.Name, func(config map[string]string) error {
		if !b.overdue(config) || config[goingKey] != "" {
			return sandbox.ErrState
		}
		config[overKey] = b.now().UTC().Format(time.RFC3339)
		return nil
	}, nil)
	if err != nil {
		return err
	}
	if inst.StatusCode == api.Stopped {
		return nil
	}
	if err := b.stop(ctx, inst.Name, inst.StatusCode == api.Frozen); err != nil {
		return err
	}
	return b.unplug(ctx, inst.Name)
}

// destroyedAt is when a sandbox is destroyed that was stopped because its lease was over; the zero time of all others.
func destroyedAt(config map[string]string) time.Time {
	at, err := time.Parse(time.RFC3339, config[overKey])
	if err != nil {
		return time.Time{}
	}
	return at.Add(sandbox.Grace)
}

// leaseOver is what a start is refused with after the end of a lease.
func leaseOver(inst *api.Instance) error {
	name := inst.Config[nameKey]
	return fault.New(fault.State, fault.Sandbox(name), "is stopped: its lease is over", fault.Hint{Action: fault.Extend, Name: name})
}
