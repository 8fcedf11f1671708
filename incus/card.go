package incus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fault"
	"pixels/sandbox"
)

// card is the device of an instance that holds its wire. A sandbox has one while it runs, unless its mode is none.
const card = "eth0"

// addressKey of a card is the address that the gateway has assigned to its wire. What a sandbox says of its address is of
// no account.
const addressKey = "user.address"

// egressOf reads from an instance's keys what it may reach. Keys that can't be read allow nothing of its own.
func egressOf(config map[string]string) (mode egress.Mode, own []egress.Grant, err error) {
	mode = egress.Mode(config[egressKey])
	if err := mode.Check(); err != nil {
		return egress.None, nil, err
	}
	if text := config[rulesKey]; text != "" {
		if err := json.Unmarshal([]byte(text), &own); err != nil {
			return mode, nil, fmt.Errorf("read the key %s: %w", rulesKey, err)
		}
	}
	// An older version kept grants for one connection here: better lost than used twice.
	own = slices.DeleteFunc(own, func(g egress.Grant) bool { return g.Once != "" })
	return mode, own, nil
}

// setRules writes the own rules of a sandbox to its keys.
func setRules(config map[string]string, own []egress.Grant) error {
	if len(own) == 0 {
		config[rulesKey] = ""
		return nil
	}
	text, err := json.Marshal(own)
	config[rulesKey] = string(text)
	return err
}

// mark tells keys apart that mean different policies. A gateway keeps it beside the policy, so that a server sees whether
// the gateway enforces what the keys say now.
func mark(config map[string]string) string {
	return gateway.Version([]byte(config[egressKey] + "\n" + config[rulesKey]))
}

// wired tells whether a sandbox with these keys is on a wire while it runs.
func wired(config map[string]string) bool { return config[egressKey] != string(egress.None) }

// wiresOf returns the wires of the network that a sandbox with these keys is on: servers with different networks may share
// a project.
func (b *Backend) wiresOf(config map[string]string) *wires {
	network := config[networkKey]
	if network == "" || network == b.config.Network {
		return b.wires
	}
	w, there := b.others.Load(network)
	if there {
		return w.(*wires)
	}
	c := b.config
	c.Network = network
	w, _ = b.others.LoadOrStore(network, newWires(b.server, c))
	return w.(*wires)
}

// takeWire puts a sandbox on a wire, with the policy that its keys say in force there, and returns its card: nil when it
// is to have none.
func (b *Backend) takeWire(ctx context.Context, id string, config map[string]string) (map[string]string, error) {
	if !wired(config) {
		return nil, nil
	}
	mode, own, err := egressOf(config)
	if err != nil {
		return nil, err
	}
	if found := b.leaks(ctx, b.wiresOf(config)); found != "" && mode != egress.Unrestricted && config[ownerKey] != canaryOwner {
		return nil, fault.Errorf(fault.Unsupported, fault.Hint{Action: fault.TryGateway}, "the egress %s is %s here: %s", mode, fault.Unsupported, leaky(found))
	}
	if b.bridged {
		return map[string]string{"type": "nic", "network": b.config.Network, "name": card}, nil
	}
	wires := b.wiresOf(config)
	wire, free, err := wires.take(ctx, id, b.config.Presets.For(mode, own), mark(config))
	if err != nil {
		return nil, fmt.Errorf("find it a way out: %w", err)
	}
	b.topUp(wires, free)
	return wires.device(wire), nil
}

// dropTime is how long the gateway may take to end a stay.
const dropTime = 3 * time.Second

// dropWire ends a sandbox's stay on its wire. What fails, a sweep repeats.
func (b *Backend) dropWire(ctx context.Context, id string) {
	wires := b.wires
	if inst := b.cache.lately()[id]; inst != nil {
		wires = b.wiresOf(inst.Config)
	}
	ctx, cancel := context.WithTimeout(ctx, dropTime)
	defer cancel()
	_, _ = wires.ask(ctx, gateway.Request{Op: gateway.Drop, Sandbox: id})
}

// plug gives a stopped sandbox with these keys a wire for its next run: not the one that it may have still, from a stop that
// came from inside or as one that turned out to be broken.
func (b *Backend) plug(ctx context.Context, id string, config map[string]string) error {
	b.dropWire(ctx, id)
	device, err := b.takeWire(ctx, id, config)
	if err != nil {
		return err
	}
	if err := b.setCard(ctx, id, device, ""); err != nil {
		b.dropWire(ctx, id)
		return err
	}
	return b.enforceChange(ctx, id, mark(config))
}

// unplug takes the card of a sandbox that has stopped, and then its wire: in that order, because the wire's name is given
// to another one later.
func (b *Backend) unplug(ctx context.Context, id string) error {
	if err := b.setCard(ctx, id, nil, ""); err != nil {
		return err
	}
	b.dropWire(ctx, id)
	return nil
}

// replug gives a running sandbox a new card in the place of one whose wire is gone. gatewayRun is noted with it.
func (b *Backend) replug(ctx context.Context, inst *api.Instance, gatewayRun string) error {
	device, err := b.takeWire(ctx, inst.Name, inst.Config)
	if err != nil || device == nil {
		return err
	}
	if inst.Devices[card] != nil {
		if err := b.editCard(ctx, inst.Name, takeLost); err != nil {
			return err
		}
	}
	if err := b.setCard(ctx, inst.Name, device, gatewayRun); err != nil {
		return err
	}
	return b.enforceChange(ctx, inst.Name, mark(inst.Config))
}

// enforceChange has the gateway enforce the keys of a sandbox unless they are those that it was told of, by their mark.
func (b *Backend) enforceChange(ctx context.Context, id, told string) error {
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err == nil && mark(inst.Config) != told {
		_, err = b.enforce(ctx, id, inst.Config)
	}
	return err
}

// takeLost takes a card away whose wire is gone. Incus brings a card back to the host and restores what it was there. It
// fails when nothing of the name is on the host any more, and then forgets that name, and fails for ever; so it is told the
// name, and, by the address of a PCI slot, that there is nothing to restore. As of Incus 6.0.4 and 7.3:
// internal/server/device/nic_physical.go, postStop, and deviceDetachNIC of
// internal/server/instance/drivers/driver_lxc.go.
func takeLost(put *api.InstancePut) error {
	if device := put.Devices[card]; device != nil {
		put.Config["volatile."+card+".host_name"] = device["parent"]
		put.Config["volatile."+card+".last_state.pci.slot.name"] = "none"
		delete(put.Devices, card)
	}
	return nil
}

// setCard makes device the card of an instance, or takes it away when it is nil.
func (b *Backend) setCard(ctx context.Context, id string, device map[string]string, gatewayRun string) error {
	return b.editCard(ctx, id, func(put *api.InstancePut) error {
		if device == nil {
			delete(put.Devices, card)
		} else {
			put.Devices[card] = device
		}
		moveEnv(put.Config) // before a start, say
		if gatewayRun != "" {
			put.Config[pluggedKey] = gatewayRun
		}
		return nil
	})
}

func (b *Backend) editCard(ctx context.Context, id string, change func(*api.InstancePut) error) error {
	unlock, err := b.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	err = edit(ctx, b.server, id, change)
	b.cache.touch(id)
	return err
}

// SetEgress implements sandbox.Backend. The gateway is told while Incus writes the keys, which takes it longer than the
// connection that someone waits for, and once more when they are written. What a killed process left undone, a sweep does.
func (b *Backend) SetEgress(ctx context.Context, id string, edit sandbox.EgressEdit) (cut int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), busyTime)
	defer cancel()
	err = b.everywhere(ctx, id, func(config map[string]string) error {
		if config[goingKey] != "" {
			return fault.Errorf(sandbox.ErrNotFound, fault.Hint{}, "it is being destroyed (not found)")
		}
		mode, own, err := egressOf(config)
		if err != nil {
			return err
		}
		if mode, own, err = edit(mode, own); err != nil {
			return err
		}
		config[egressKey] = string(mode)
		return setRules(config, own)
	}, func(id string, edit editor) error {
		n, err := b.reach(ctx, id, edit)
		cut += n
		if err == nil {
			b.lookAgain(ctx, id, edit)
		}
		return err
	})
	return cut, b.failed(err, "change what the sandbox may reach")
}

// lookAgainAfter is how long Incus may take to carry out a change that it has accepted already.
const lookAgainAfter = 200 * time.Millisecond

// lookAgain makes a change once more where another one undid it that Incus had accepted before, and carried out after it: the
// revision is an older one then.
func (b *Backend) lookAgain(ctx context.Context, id string, edit editor) {
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return // it is gone, or another change finds what this one would
	}
	b.later(func(ctx context.Context) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(b.late):
		}
		now, _, err := b.server.with(ctx).GetInstance(id)
		if err == nil && number(now.Config, revisionKey) < number(inst.Config, revisionKey) {
			_, _ = b.reach(ctx, id, edit) // a sweep has the gateway enforce what the keys say
		}
	})
}

// reach changes the keys of one instance, and has the gateway enforce them.
func (b *Backend) reach(ctx context.Context, id string, edit editor) (cut int, err error) {
	var after map[string]string
	told := ""
	err = b.change(ctx, id, func(config map[string]string) error {
		after = config
		return edit(config)
	}, func(config map[string]string) {
		if told != mark(config) { // it is told once more below
			n, _ := b.tell(ctx, id, config)
			told, cut = mark(config), cut+n
		}
	})
	if err != nil && told != "" {
		err = errors.Join(err, b.enforceChange(ctx, id, told))
	}
	if err != nil {
		return cut, err
	}
	n, err := b.enforce(ctx, id, after)
	if err != nil {
		err = fmt.Errorf("have the gateway enforce it: %w", err)
	}
	return cut + n, err
}

// tell has the gateway enforce keys for a sandbox that is on a wire.
func (b *Backend) tell(ctx context.Context, id string, config map[string]string) (cut int, err error) {
	mode, own, err := egressOf(config)
	if err != nil {
		return 0, err
	}
	policy := b.config.Presets.For(mode, own)
	reply, err := b.wiresOf(config).ask(ctx, gateway.Request{Op: gateway.Set, Sandbox: id, Policy: &policy, Mark: mark(config)})
	return reply.Cut, err
}

// enforce has the gateway enforce a sandbox's keys, as they were read or written a moment ago. Should another one have
// changed them since, the gateway may have been told of the older ones last: so they are read again afterwards. A sandbox
// that runs gets a wire if it has none.
func (b *Backend) enforce(ctx context.Context, id string, config map[string]string) (cut int, err error) {
	for {
		n, told := b.tell(ctx, id, config)
		cut += n
		inst, _, err := b.server.with(ctx).GetInstance(id)
		switch {
		case err != nil:
			return cut, err
		case told != nil && inst.StatusCode == api.Stopped: // it is told when the sandbox starts
			return cut, nil
		case told != nil && !errors.Is(told, gateway.ErrNoSandbox):
			return cut, told
		case mark(inst.Config) != mark(config):
			config = inst.Config
			continue
		case told == nil || !wired(config):
			return cut, nil
		}
		run, _, err := b.gatewayRun(ctx)
		if err != nil {
			return cut, err
		}
		return cut, b.replug(ctx, inst, run)
	}
}
