package incus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress/gateway"
	"pixels/sandbox"
)

// cardSettles is how long ago a wire must have been taken before it counts as unplugged.
const cardSettles = 5 * time.Second

// mendWires brings instances and gateway into line: wires whose sandbox is gone or has stopped are given back, running
// sandboxes whose wire is gone (the gateway was restarted, or they deleted it) are plugged again, and what keys allow is
// what the gateway enforces. Any number of servers may do so at once.
func (b *Backend) mendWires(ctx context.Context, all map[string]*known) error {
	running := map[string]api.Instance{}
	for id, k := range all {
		if shown(k.Instance, all) && whole(k.Instance) && wired(k.Config) && k.StatusCode == api.Running {
			running[id] = k.Instance
		}
	}
	reply, err := b.wires.ask(ctx, gateway.Request{Op: gateway.Wires})
	if err != nil {
		if len(running) == 0 {
			return nil // nobody misses it
		}
		return err
	}
	var errs []error
	for _, wire := range reply.Wires {
		if wire.State != gateway.Taken {
			continue
		}
		id, taken := wire.Sandbox, time.Duration(wire.Taken*float64(time.Second))
		inst, runs := running[id]
		delete(running, id)
		switch k := all[id]; {
		case runs && !wire.Plugged && taken >= cardSettles:
			err = b.again(ctx, inst, true)
		case runs && wire.Mark != mark(inst.Config):
			_, err = b.enforce(ctx, &inst, inst.Config)
		case !runs && k == nil && taken >= b.stale:
			b.dropWire(ctx, id)
		case !runs && k != nil && k.StatusCode == api.Stopped && taken >= b.stale:
			err = b.unplug(ctx, id)
		}
		if err != nil && !missing(err) {
			errs = append(errs, fmt.Errorf("the way out of %s: %w", id, err))
		}
	}
	for id, inst := range running { // those on no wire
		if err := b.again(ctx, inst, false); err != nil && !missing(err) {
			errs = append(errs, fmt.Errorf("the way out of %s: %w", id, err))
		}
	}
	errs = append(errs, b.wires.tend(ctx, fewWires, enoughWires))
	return errors.Join(errs...)
}

// again plugs a sandbox again that runs and has no way out. One that is on a wire may only have its card down.
func (b *Backend) again(ctx context.Context, inst api.Instance, onWire bool) error {
	now, _, err := b.server.GetInstance(inst.Name)
	if err != nil || now.StatusCode != api.Running || now.Config[goingKey] != "" {
		return err
	}
	if onWire {
		state, _, err := b.server.GetInstanceState(inst.Name)
		if err != nil {
			return err
		}
		if _, there := state.Network[card]; there {
			return nil
		}
	}
	return b.replug(ctx, now)
}

// topUp makes wires in the background when few are left.
func (b *Backend) topUp(free int) {
	if free >= fewWires || !b.toppingUp.CompareAndSwap(false, true) {
		return
	}
	b.later(func(ctx context.Context) {
		defer b.toppingUp.Store(false)
		_ = b.wires.tend(ctx, fewWires, enoughWires) // who needs one that isn't there learns why
	})
}

// errNoGateway says what to do when there is none.
func errNoGateway(name string) error {
	return fmt.Errorf("%w: there is no gateway %s, the one way out of sandboxes; a human makes it with `pixels-mcp setup`, and egress none works without", sandbox.ErrUnavailable, name)
}
