package incus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/lxc/incus/v6/shared/api"
	"golang.org/x/sync/semaphore"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fault"
)

// wires are the ways of sandboxes to the gateway. A wire is a pair of interfaces: one end is a device of the gateway's
// instance, and the other lies on the host until a sandbox takes it as its card. The gateway says which sandbox is on
// which, so that any number of servers can share it. Wires are made ahead of need, and a used one is made anew.
type wires struct {
	server *daemon
	local  bool   // Incus runs on this machine
	name   string // of the gateway's instance
	stock  stock
	ends   string // how the names of the wires' other ends begin

	lost func() // hears that a channel ended, unless we ended it; may be nil

	mu      sync.Mutex // guards the next ones; nobody asks anything under it
	channel *gateway.Client
	opening *opening      // that is under way, or nil
	closed  bool          // no channel is kept any more
	ending  chan struct{} // closed once lost is not called any more

	changing *semaphore.Weighted // of the gateway's devices: Incus refuses two changes at once
	blocked  map[int]bool        // numbers whose name on the host is taken, guarded by changing
}

// opening opens a channel to the gateway, for all who wait for it.
type opening struct {
	done    chan struct{} // closed when the others are set
	channel *gateway.Client
	err     error
}

// stock is how many free wires there are to be: with fewer than few, as many are made as are enough. A batch takes some
// 40 ms a wire.
type stock struct{ few, enough int }

var usualStock = stock{16, 40}

const hurriedWires = 8 // made at once for a sandbox that waits

// answerTime is how long the gateway may take for an answer, and openTime for a channel, with its start where it was stopped.
const (
	answerTime = 10 * time.Second
	openTime   = 30 * time.Second
)

// ask asks the gateway one thing, over a channel that is kept open. One that gives no answer is dropped: with it, what
// others wait for comes to an end, and nothing piles up in it.
func (w *wires) ask(ctx context.Context, r gateway.Request) (gateway.Reply, error) {
	late := fault.With(fmt.Errorf("waited %s for its answer; is it paused?", answerTime), fault.Hint{Action: fault.LookAtGateway, Name: w.name})
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, late)
	defer cancel()
	for again := false; ; again = true {
		channel, err := w.speak(ctx)
		if err != nil {
			return gateway.Reply{}, err
		}
		reply, err := channel.Do(ctx, r)
		if err == late {
			_ = channel.Close()
		}
		if !errors.Is(err, gateway.ErrGone) || again {
			return reply, err
		}
	}
}

// speak returns the channel that is kept, or a new one.
func (w *wires) speak(ctx context.Context) (*gateway.Client, error) {
	w.mu.Lock()
	if w.channel != nil {
		select {
		case <-w.channel.Done():
		default:
			defer w.mu.Unlock()
			return w.channel, nil
		}
	}
	o := w.opening
	if o == nil {
		o = &opening{done: make(chan struct{})}
		w.opening = o
		go w.open(o)
	}
	w.mu.Unlock()
	select {
	case <-o.done:
		return o.channel, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// open opens a channel. No single caller's end ends it.
func (w *wires) open(o *opening) {
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	o.channel, o.err = w.reach(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	defer close(o.done)
	w.opening = nil
	if o.err != nil {
		return
	}
	w.channel = o.channel
	if w.closed {
		_ = w.channel.Close()
	}
	if w.lost != nil {
		go w.tellLost(o.channel)
	}
}

// reach makes a channel, and starts the gateway where it was stopped. One that Incus is busy with, or that has lost what it is made
// of, it may be deleting: one of the next looks tells.
func (w *wires) reach(ctx context.Context) (*gateway.Client, error) {
	late := time.Now().Add(endingTime)
	for again := false; ; again = true {
		channel, err := speakToGateway(ctx, w.server, w.name, nil)
		if err == nil {
			return channel, nil
		}
		inst, _, e := w.server.with(ctx).GetInstance(w.name)
		switch {
		case missing(e):
			return nil, errNoGateway(w.name)
		case e != nil:
			return nil, err
		case inst.StatusCode == api.Frozen:
			return nil, fault.With(errors.New("it can't answer: is it paused?"), fault.Hint{Action: fault.LookAtGateway, Name: w.name})
		case inst.StatusCode != api.Stopped:
			return nil, err
		}
		// By someone, or it died.
		if err = startGateway(ctx, w.server, w.name); err == nil {
			return speakToGateway(ctx, w.server, w.name, nil)
		}
		if goneMeanwhile(err) {
			return nil, errNoGateway(w.name)
		}
		going := notFoundInside(err) && time.Now().Before(late)
		if again && !busy(err) && !going {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tellLost calls lost once a channel has ended, unless we ended it.
func (w *wires) tellLost(channel *gateway.Client) {
	<-channel.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.ending:
	default:
		w.lost()
	}
}

// hush keeps lost from being called from now on.
func (w *wires) hush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.ending:
	default:
		close(w.ending)
	}
}

// close ends the channel.
func (w *wires) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.channel != nil {
		_ = w.channel.Close()
	}
}

// take finds a sandbox a wire, with its policy in force on it, and makes some when none is free. It also returns how many
// are left.
func (w *wires) take(ctx context.Context, sandbox string, policy egress.Policy, mark string) (wire gateway.Wire, free int, err error) {
	for range 5 { // others may take what was made
		reply, err := w.ask(ctx, gateway.Request{Op: gateway.Take, Sandbox: sandbox, Policy: &policy, Mark: mark})
		if err == nil {
			return *reply.Wire, reply.Free, nil
		}
		if !errors.Is(err, gateway.ErrNoWire) {
			return gateway.Wire{}, 0, err
		}
		if err := w.tend(ctx, hurriedWires, hurriedWires); err != nil {
			return gateway.Wire{}, 0, err
		}
	}
	return gateway.Wire{}, 0, gateway.ErrNoWire
}

// device is a sandbox's end of a wire.
func (w *wires) device(wire gateway.Wire) map[string]string {
	return map[string]string{"type": "nic", "nictype": "physical", "parent": w.hostEnd(wire.Number), "name": card, addressKey: wire.Address.String()}
}

// tend makes used wires anew and sees to it that enough are free, when fewer than few are.
func (w *wires) tend(ctx context.Context, few, enough int) error {
	if err := w.changing.Acquire(ctx, 1); err != nil {
		return err
	}
	defer w.changing.Release(1)
	reply, err := w.ask(ctx, gateway.Request{Op: gateway.Wires})
	if err != nil {
		return err
	}
	if countFree(reply.Wires) >= few {
		return nil
	}
	if err := w.deleteStrays(ctx, reply.Wires); err != nil {
		return err
	}
	used, err := w.worn(ctx)
	if err != nil {
		return err
	}
	if len(used) > 0 {
		err := edit(ctx, w.server, w.name, func(put *api.InstancePut) error {
			for _, name := range used {
				delete(put.Devices, name)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("take used wires away: %w", err)
		}
	}
	if reply, err = w.ask(ctx, gateway.Request{Op: gateway.Wires}); err != nil {
		return err
	}
	made, err := w.add(ctx, enough, reply)
	for err != nil && w.clear(err) {
		made, err = w.add(ctx, enough, reply)
	}
	if err != nil {
		return fmt.Errorf("make wires: %w", err)
	}
	return w.seen(ctx, made)
}

// add adds wires to the gateway until enough are free, and returns their numbers. It is no failure to find room for none
// where some are free.
func (w *wires) add(ctx context.Context, enough int, there gateway.Reply) (made []int, err error) {
	taken, free := map[int]bool{}, countFree(there.Wires)
	for _, wire := range there.Wires {
		taken[wire.Number] = true
	}
	err = edit(ctx, w.server, w.name, func(put *api.InstancePut) error {
		made = nil
		for number := 0; free+len(made) < enough; number++ {
			name := gateway.Interface(number)
			if put.Devices[name] != nil || taken[number] || w.blocked[number] {
				continue
			}
			if number >= there.Limit {
				break // as many sandboxes as the network has addresses for
			}
			put.Devices[name] = map[string]string{"type": "nic", "nictype": "p2p", "name": name, "host_name": w.hostEnd(number)}
			made = append(made, number)
		}
		if free+len(made) == 0 {
			return fmt.Errorf("%w: the network has room for %d sandboxes, and all of it is taken; stop or destroy some", gateway.ErrNoWire, there.Limit)
		}
		return nil
	})
	return made, err
}

func countFree(all []gateway.Wire) (free int) {
	for _, wire := range all {
		if wire.State == gateway.Free {
			free++
		}
	}
	return free
}

// worn returns the devices of wires that are good for nothing: a sandbox was on them, or they have no interface any more, or
// lead nowhere.
func (w *wires) worn(ctx context.Context) (worn []string, err error) {
	inst, _, err := w.server.with(ctx).GetInstance(w.name)
	if err != nil {
		return nil, err
	}
	for look := range 2 {
		reply, err := w.ask(ctx, gateway.Request{Op: gateway.Wires})
		if err != nil {
			return nil, err
		}
		states := map[int]gateway.State{}
		for _, wire := range reply.Wires {
			states[wire.Number] = wire.State
		}
		worn = nil
		lacking := false
		for name, device := range inst.Devices {
			number, ok := gateway.WireNumber(name)
			if !ok {
				continue
			}
			state, there := states[number]
			lacking = lacking || !there
			if !there || state == gateway.Used || state == gateway.Free && device["host_name"] != w.hostEnd(number) {
				worn = append(worn, name)
			}
		}
		if !lacking || look > 0 {
			break
		}
		select { // another server may just be making it
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
	return worn, nil
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
		case <-time.After(20 * time.Millisecond): // with many wires the answer is long
		}
	}
}

// edit edits an instance's devices and keys, again when another server was faster, or while Incus changes the instance.
func edit(ctx context.Context, server *daemon, id string, edit func(*api.InstancePut) error) error {
	patient := time.Now().Add(busyTimeOfEdit)
	for {
		inst, etag, err := server.with(ctx).GetInstance(id)
		if err != nil {
			return err
		}
		put := inst.Writable()
		put.Devices, put.Config = maps.Clone(inst.Devices), maps.Clone(inst.Config)
		if put.Devices == nil {
			put.Devices = map[string]map[string]string{}
		}
		if err := edit(&put); err != nil {
			return err
		}
		if maps.EqualFunc(put.Devices, inst.Devices, maps.Equal) && maps.Equal(put.Config, inst.Config) {
			return nil
		}
		op, err := server.commit(ctx).UpdateInstance(id, put, etag)
		_, err = finish(ctx, server, op, err)
		switch {
		case full(err):
			now, _, e := server.with(ctx).GetInstance(id)
			if e == nil && !(maps.EqualFunc(put.Devices, now.Devices, maps.Equal) && holds(now.Config, inst.Config, put.Config)) {
				e = err
			}
			return e
		case ctx.Err() != nil:
			return err
		case busy(err) && time.Now().Before(patient):
			time.Sleep(20 * time.Millisecond)
		case !changedMeanwhile(err):
			return err
		}
	}
}

// newWires returns the wires of the gateway that is configured.
func newWires(server *daemon, c Config) *wires {
	c = c.withDefaults()
	name := c.Gateway()
	// There may be several gateways on a host.
	return &wires{server: server, local: c.Remote == "", name: name, stock: c.stock, ending: make(chan struct{}), changing: semaphore.NewWeighted(1), ends: "px" + gateway.Version([]byte(c.Project + "/" + name))[:6] + "-"}
}

// hostEnd is the name of a wire's other end while it lies on the host.
func (w *wires) hostEnd(number int) string { return w.ends + strconv.Itoa(number) }
