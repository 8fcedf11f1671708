package incus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lxc/incus/v6/shared/api"
	"golang.org/x/sync/errgroup"

	"pixels/egress/gateway"
	"pixels/internal/fault"
)

// mendWires brings instances and gateway into line: wires whose sandbox is gone or has stopped are given back, running
// sandboxes whose wire is gone (the gateway was restarted, or they deleted it) are plugged again, and what keys allow is
// what the gateway enforces. Any number of servers may do so at once.
func (b *Backend) mendWires(ctx context.Context, all map[string]*known) error {
	if err := b.mending.Acquire(ctx, 1); err != nil {
		return err
	}
	defer b.mending.Release(1)
	up, lacking := map[string]api.Instance{}, map[string]bool{}
	for id, k := range all {
		if shown(k.Instance, all) && whole(k.Instance) && b.wiresOf(k.Config) == b.wires && k.StatusCode != api.Stopped {
			up[id] = k.Instance
			lacking[id] = wired(k.Config) && k.StatusCode == api.Running
		}
	}
	reply, err := b.wires.ask(ctx, gateway.Request{Op: gateway.Wires})
	if err != nil {
		if len(up) == 0 {
			return nil // nobody misses it
		}
		return err
	}
	run, since, err := b.gatewayRun(ctx) // it may have been started just now, to be asked
	if err != nil {
		return err
	}
	var errs []error
	var lost []string // sandboxes on no wire
	for _, wire := range reply.Wires {
		if wire.State != gateway.Taken {
			continue
		}
		id, taken := wire.Sandbox, time.Duration(wire.Taken*float64(time.Second))
		inst, isUp := up[id]
		plugged := !lacking[id] || !unplugged(inst, run, since)
		delete(lacking, id)
		var err error
		switch k := all[id]; {
		case isUp && !plugged:
			lost = append(lost, id)
		case isUp && wire.Mark != mark(inst.Config):
			err = b.enforceChange(ctx, id, wire.Mark)
		case k == nil && taken >= b.stale:
			b.dropWire(ctx, id)
		case k != nil && k.StatusCode == api.Stopped && taken >= b.stale:
			err = b.unplug(ctx, id)
		}
		if err != nil && !missing(err) {
			errs = append(errs, fmt.Errorf("the way out of %s: %w", id, err))
		}
	}
	for id, lacks := range lacking {
		if lacks {
			lost = append(lost, id)
		}
	}
	errs = append(errs, b.allAgain(ctx, lost, run))
	errs = append(errs, b.wires.tend(ctx, b.wires.stock.few, b.wires.stock.enough))
	return errors.Join(errs...)
}

// mendSoon mends after the gateway was lost, which sandboxes would feel until the next sweep.
func (b *Backend) mendSoon(ctx context.Context) {
	for range 20 {
		select {
		case <-ctx.Done():
			return
		case <-b.wires.ending: // the process is about to end, and another one sees to it
			return
		case <-time.After(500 * time.Millisecond):
		}
		if all, err := b.cache.fresh(ctx); err == nil && b.mendWires(ctx, all) == nil {
			return
		}
	}
}

// unplugged tells of a running sandbox whether its wire went with an earlier run of the gateway.
func unplugged(i api.Instance, gatewayRun string, since time.Time) bool {
	return since.After(i.LastUsedAt) && i.Config[pluggedKey] != gatewayRun
}

// gatewayRun names the present run of the gateway, and says when it began; empty while it doesn't run.
func (b *Backend) gatewayRun(ctx context.Context) (run string, since time.Time, err error) {
	inst, _, err := b.server.with(ctx).GetInstance(b.wires.name)
	if err != nil || inst.StatusCode != api.Running {
		return "", time.Time{}, err
	}
	return inst.LastUsedAt.UTC().Format(time.RFC3339Nano), inst.LastUsedAt, nil
}

// How many sandboxes are plugged again at once, and how long each may hold that up: root inside can.
const (
	plugsAtOnce  = 8
	plugPatience = 3 * time.Second
)

// allAgain is again for many.
func (b *Backend) allAgain(ctx context.Context, ids []string, gatewayRun string) error {
	var group errgroup.Group
	group.SetLimit(plugsAtOnce)
	errs := make([]error, len(ids))
	for i, id := range ids {
		group.Go(func() error {
			if err := b.again(ctx, id, gatewayRun); err != nil && !missing(err) {
				errs[i] = fmt.Errorf("the way out of %s: %w", id, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// again plugs a running sandbox again whose wire is gone. The end of the old one may still be there, for as long as the
// kernel has connections of the gateway that ended; Incus would bring it to the host, under a name that is taken there by
// now. So it is removed inside: who prevents that stays without a way out until the sandbox is started again. Should two
// servers do so at once, so that one removes the card that the other one brought, the gateway knows no wire of it then.
func (b *Backend) again(ctx context.Context, id, gatewayRun string) error {
	now, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil || now.StatusCode != api.Running || now.Config[goingKey] != "" {
		return err
	}
	if gatewayRun != "" && now.Config[pluggedKey] == gatewayRun { // by another server just now, unless it is gone once more
		_, err := b.wires.ask(ctx, gateway.Request{Op: gateway.Status, Sandbox: id})
		if !errors.Is(err, gateway.ErrNoSandbox) {
			return err
		}
	}
	state, _, err := b.server.with(ctx).GetInstanceState(id)
	if err != nil {
		return err
	}
	if _, there := state.Network[card]; there {
		ctx, cancel := context.WithTimeout(ctx, plugPatience)
		defer cancel()
		program, err := b.program(ctx, now)
		if err != nil {
			return err
		}
		said := heard{most: saidMost}
		code, err := b.execPatiently(ctx, id, api.InstanceExecPost{Command: []string{program, "unplug"}}, nil, nil, &said, nil, 0)
		if err == nil && code != 0 {
			err = fmt.Errorf("take its old card away: %s", &said)
		}
		if err != nil {
			return err
		}
	}
	return b.replug(ctx, now, gatewayRun)
}

// topUp makes wires in the background when few are left.
func (b *Backend) topUp(w *wires, free int) {
	if free >= w.stock.few || !b.toppingUp.CompareAndSwap(false, true) {
		return
	}
	b.later(func(ctx context.Context) {
		defer b.toppingUp.Store(false)
		_ = w.tend(ctx, w.stock.few, w.stock.enough) // who needs one that isn't there learns why
	})
}

// errNoGateway says what to do when there is none.
func errNoGateway(name string) error {
	return fault.Errorf(fault.Unavailable, fault.Hint{Action: fault.SetUp}, "%s: there is no gateway %s, the one way out of sandboxes; egress none works without", fault.Unavailable, name)
}
