package incus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress/gateway"
	"pixels/internal/fault"
	"pixels/sandbox"
)

// stopGrace is how long a sandbox has to end by itself, in seconds; then it is ended.
const stopGrace = 10

// stateTimeout bounds a change of state but for becoming ready.
const stateTimeout = 40 * time.Second

// SetState implements sandbox.Backend.
func (b *Backend) SetState(ctx context.Context, id string, state sandbox.State) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return b.failed(err, "find the sandbox")
	}
	name := inst.Config[nameKey]
	from := describe(inst).State
	if from == sandbox.Creating {
		return fault.About(sandbox.ErrState, fault.Sandbox(name), "is in the wrong state: it is still being made, or was left half-made")
	}
	// What was begun is not left half-way: a sandbox that was given up while it started is running all the same.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateTimeout)
	defer cancel()
	switch {
	case from == state && (state != sandbox.Running || inst.Config[idleKey] == ""):
		return nil
	case from == state: // who meant to stop it for want of use was killed before
		err = b.awake(bounded, id, inst.Config)
	case state == sandbox.Paused && from == sandbox.Running:
		err = b.act(bounded, id, "freeze")
	case state == sandbox.Paused:
		return fault.New(sandbox.ErrState, fault.Sandbox(name), fmt.Sprintf("is %s, which is the wrong state to pause it", from), fault.Hint{Action: fault.StartSandbox, Name: name})
	case state == sandbox.Running && from == sandbox.Paused:
		err = b.act(bounded, id, "unfreeze")
	case state == sandbox.Running && inst.Config[overKey] != "":
		return leaseOver(inst)
	case state == sandbox.Running:
		if err = b.plug(bounded, id, inst.Config); err != nil {
			break
		}
		if err = b.boot(bounded, id, inst.Config); err == nil {
			err = b.awaitReady(ctx, id, wired(inst.Config))
		}
		if err == nil {
			err = b.awake(bounded, id, inst.Config)
		}
	default:
		if err = b.stop(bounded, id, from == sandbox.Paused); err == nil {
			err = b.unplug(bounded, id)
		}
	}
	return b.failed(err, "set sandbox %s to %s", name, state)
}

// act asks Incus for a change of state and waits for it.
func (b *Backend) act(ctx context.Context, id, action string) error {
	op, err := b.server.commit(ctx).UpdateInstanceState(id, api.InstanceStatePut{Action: action, Timeout: -1}, "")
	_, err = finish(ctx, b.server, op, err)
	b.cache.touch(id)
	return err
}

// boot starts an instance that has a card, with another one where its wire turns out to be broken or goes just then.
func (b *Backend) boot(ctx context.Context, id string, config map[string]string) error {
	for try := 1; ; try++ {
		err := b.act(ctx, id, "start")
		if err == nil || try == maxWireTries || !b.wireFailed(ctx, id, config, err) {
			return err
		}
		e := b.unplug(ctx, id)
		for end := time.Now().Add(cleanUpTime); stopping(e) && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
			e = b.unplug(ctx, id)
		}
		if e == nil {
			e = b.plug(ctx, id, config)
		}
		if e != nil {
			return errors.Join(err, e)
		}
	}
}

// cleanUpTime is how long Incus may take to clean up after a start that failed. It takes no change of the instance meanwhile.
const cleanUpTime = 5 * time.Second

// wireFailed tells whether a start failed for the wire: it could not be taken, or was gone before it was.
func (b *Backend) wireFailed(ctx context.Context, id string, config map[string]string, err error) bool {
	if cardFailed(err) {
		return true
	}
	if !wired(config) || b.bridged {
		return false
	}
	_, err = b.wiresOf(config).ask(ctx, gateway.Request{Op: gateway.Status, Sandbox: id})
	return errors.Is(err, gateway.ErrNoSandbox)
}

// maxWireTries is how many wires are tried for one start.
const maxWireTries = 3

// stop lets a sandbox end in an orderly way, and ends it when it doesn't.
func (b *Backend) stop(ctx context.Context, id string, paused bool) error {
	if paused {
		if err := b.act(ctx, id, "unfreeze"); err != nil {
			return err
		}
	}
	defer b.cache.touch(id)
	for {
		op, err := b.server.commit(ctx).UpdateInstanceState(id, api.InstanceStatePut{Action: "stop", Timeout: stopGrace}, "")
		if _, err = finish(ctx, b.server, op, err); err == nil {
			return nil
		}
		forceErr := forceStop(ctx, b.server, id)
		if forceErr == nil {
			return nil
		}
		if inst, _, e := b.server.with(ctx).GetInstance(id); e == nil && inst.StatusCode == api.Stopped {
			return nil // it ended between the two
		}
		if err = errors.Join(err, forceErr); !busy(forceErr) {
			return err
		}
		select { // what Incus still does with it ends
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// SetExpiry implements sandbox.Backend.
func (b *Backend) SetExpiry(ctx context.Context, id string, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, busyTime)
	defer cancel()
	err := b.everywhere(ctx, id, func(config map[string]string) error {
		if config[goingKey] != "" {
			return fault.Errorf(sandbox.ErrNotFound, fault.Hint{}, "it is being destroyed (not found)")
		}
		config[expiresKey] = expiry(at)
		delete(config, overKey)
		return nil
	}, func(id string, edit editor) error { return b.change(ctx, id, edit, nil) })
	return b.failed(err, "extend the sandbox")
}
