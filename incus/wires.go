package incus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/egress/gateway"
)

// wires are the ways of sandboxes to the gateway. A wire is a pair of interfaces: one end is a device of the gateway's
// instance, and the other lies on the host until a sandbox takes it as its card. The gateway says which sandbox is on
// which, so that any number of servers can share it. Wires are made ahead of need, and a used one is made anew.
type wires struct {
	server client.InstanceServer
	name   string // of the gateway's instance

	speaking sync.Mutex
	channel  *gateway.Client

	changing sync.Mutex // of the gateway's devices: Incus refuses two changes at once
}

// How many free wires there are to be, at least and after more were made. A batch takes some 40 ms a wire.
const (
	fewWires     = 16
	enoughWires  = 40
	hurriedWires = 8 // made at once for a sandbox that waits
)

// ask asks the gateway one thing, over a channel that is kept open.
func (w *wires) ask(ctx context.Context, r gateway.Request) (gateway.Reply, error) {
	for again := false; ; again = true {
		channel, err := w.speak()
		if err != nil {
			return gateway.Reply{}, err
		}
		reply, err := channel.Do(ctx, r)
		if !errors.Is(err, gateway.ErrGone) || again {
			return reply, err
		}
	}
}

func (w *wires) speak() (*gateway.Client, error) {
	w.speaking.Lock()
	defer w.speaking.Unlock()
	if w.channel != nil {
		select {
		case <-w.channel.Done():
		default:
			return w.channel, nil
		}
	}
	channel, err := speakToGateway(w.server, w.name, nil)
	if err != nil {
		return nil, fmt.Errorf("%w; `pixels-mcp setup` makes the gateway and starts it", err)
	}
	w.channel = channel
	return channel, nil
}

// close ends the channel.
func (w *wires) close() {
	w.speaking.Lock()
	defer w.speaking.Unlock()
	if w.channel != nil {
		_ = w.channel.Close()
	}
}

// take finds a sandbox a wire, with its policy in force on it, and makes some when none is free.
func (w *wires) take(ctx context.Context, sandbox string, policy egress.Policy) (gateway.Wire, error) {
	for range 5 { // others may take what was made
		reply, err := w.ask(ctx, gateway.Request{Op: gateway.Take, Sandbox: sandbox, Policy: &policy})
		if err == nil {
			return *reply.Wire, nil
		}
		if !errors.Is(err, gateway.ErrNoWire) {
			return gateway.Wire{}, err
		}
		if err := w.tend(ctx, hurriedWires, hurriedWires); err != nil {
			return gateway.Wire{}, err
		}
	}
	return gateway.Wire{}, gateway.ErrNoWire
}

// device is a sandbox's end of a wire.
func (w *wires) device(wire gateway.Wire) map[string]string {
	return map[string]string{"type": "nic", "nictype": "physical", "parent": hostEnd(w.name, wire.Number), "name": "eth0"}
}

// tend makes used wires anew and sees to it that enough are free, when fewer than few are.
func (w *wires) tend(ctx context.Context, few, enough int) error {
	w.changing.Lock()
	defer w.changing.Unlock()
	reply, err := w.ask(ctx, gateway.Request{Op: gateway.Wires})
	if err != nil {
		return err
	}
	used := map[string]bool{}
	free := 0
	for _, wire := range reply.Wires {
		switch wire.State {
		case gateway.Free:
			free++
		case gateway.Used:
			used[gateway.Interface(wire.Number)] = true
		}
	}
	if free >= few {
		return nil
	}
	if len(used) > 0 {
		err := w.change(ctx, func(devices map[string]map[string]string) error {
			for name := range used {
				delete(devices, name)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("take used wires away: %w", err)
		}
	}
	var made []int
	err = w.change(ctx, func(devices map[string]map[string]string) error {
		made = nil
		for number := 0; len(made) < enough-free; number++ {
			name := gateway.Interface(number)
			if devices[name] != nil {
				continue
			}
			if number >= reply.Limit {
				break // as many sandboxes as the network has addresses for
			}
			devices[name] = map[string]string{"type": "nic", "nictype": "p2p", "name": name, "host_name": hostEnd(w.name, number)}
			made = append(made, number)
		}
		if len(made) == 0 && free == 0 {
			return fmt.Errorf("%w: all %d are taken", gateway.ErrNoWire, reply.Limit)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make wires: %w", err)
	}
	return w.seen(ctx, made)
}

// seen returns once the gateway has wires up.
func (w *wires) seen(ctx context.Context, numbers []int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		reply, err := w.ask(ctx, gateway.Request{Op: gateway.Wires})
		if err != nil {
			return err
		}
		there := map[int]bool{}
		for _, wire := range reply.Wires {
			there[wire.Number] = true
		}
		missing := 0
		for _, n := range numbers {
			if !there[n] {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the gateway lacks %d of the %d wires that were made: %w", missing, len(numbers), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// change edits the gateway's devices, again when another server was faster.
func (w *wires) change(ctx context.Context, edit func(map[string]map[string]string) error) error {
	for {
		inst, etag, err := w.server.GetInstance(w.name)
		if err != nil {
			return err
		}
		put := inst.Writable()
		if err := edit(put.Devices); err != nil {
			return err
		}
		op, err := w.server.UpdateInstance(w.name, put, etag)
		_, err = finish(ctx, w.server, op, err)
		if !api.StatusErrorCheck(err, http.StatusPreconditionFailed) || ctx.Err() != nil {
			return err
		}
	}
}

// hostEnd is the name of a wire's other end while it lies on the host; it has a part of the gateway's, of which there may
// be several on a host.
func hostEnd(gatewayName string, number int) string {
	return "px" + gateway.Version([]byte(gatewayName))[:6] + "-" + strconv.Itoa(number)
}
