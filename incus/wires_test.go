package incus

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/testenv"
	"pixels/sandbox"
)

func TestWiresAreTakenOnceByManyServers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b := l.Backend, openBackend(t, l.settings)
	const each = 12
	var all sync.WaitGroup
	var mu sync.Mutex
	byNumber := map[int]string{}
	for i, server := range []*Backend{a, b} {
		for j := range each {
			all.Go(func() {
				id := "test-" + strings.Repeat("x", i+1) + string(rune('a'+j))
				wire, _, err := server.wires.take(t.Context(), id, egress.Policy{Mode: egress.Allowlist}, "")
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if other := byNumber[wire.Number]; other != "" {
					t.Errorf("%s and %s have both wire %d", other, id, wire.Number)
				}
				byNumber[wire.Number] = id
			})
		}
	}
	all.Wait()
	if len(byNumber) != 2*each {
		t.Fatalf("%d wires for %d sandboxes", len(byNumber), 2*each)
	}
	for _, id := range byNumber {
		if _, err := b.wires.ask(t.Context(), gateway.Request{Op: gateway.Drop, Sandbox: id}); err != nil {
			t.Error(err)
		}
	}
	if err := a.wires.tend(t.Context(), 1<<20, 4); err != nil {
		t.Fatal(err)
	}
	reply, err := a.wires.ask(t.Context(), gateway.Request{Op: gateway.Wires})
	if err != nil {
		t.Fatal(err)
	}
	for _, wire := range reply.Wires {
		if wire.State == gateway.Used || strings.HasPrefix(wire.Sandbox, "test-") {
			t.Errorf("after tending: %+v", wire)
		}
	}
}

// wireOf returns the wire that a sandbox is on.
func wireOf(t *testing.T, b *Backend, id string) gateway.Wire {
	t.Helper()
	reply, err := b.wires.ask(t.Context(), gateway.Request{Op: gateway.Wires})
	if err != nil {
		t.Fatal(err)
	}
	for _, wire := range reply.Wires {
		if wire.Sandbox == id {
			return wire
		}
	}
	t.Fatalf("%s is on no wire", id)
	return gateway.Wire{}
}

// The wire as a sandbox has it: its card is there from the first moment, has the address that the gateway gives it, and
// leads to the gateway alone.
func TestASandboxOnAWire(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := boxOf(t, b, sandbox.Spec{Name: "wired", Egress: egress.Allowlist})
	wire := wireOf(t, b, made.ID)
	if made.Address == "" || made.Address != wire.Address.String() {
		t.Fatalf("it has the address %q, not %s", made.Address, wire.Address)
	}
	var out both
	code, err := b.exec(t.Context(), made.ID, api.InstanceExecPost{Command: []string{"/bin/bash", "-c",
		"ip route show default; getent ahostsv4 somewhere.example.com | head -1; timeout 5 bash -c 'exec 3<>/dev/tcp/somewhere.example.com/80; printf \"GET / HTTP/1.1\\r\\nHost: somewhere.example.com\\r\\n\\r\\n\" >&3; cat <&3'"}}, nil, &out, &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"via 169.254.1.1", "198.18.0.1", "403 Forbidden", "somewhere.example.com:80 is denied", "allow_domain"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in what it says (exit code %d):\n%s", want, code, out.String())
		}
	}
	reply, err := b.wires.ask(t.Context(), gateway.Request{Op: gateway.Denials, Sandbox: made.ID})
	if err != nil || len(reply.Denials) != 1 || reply.Denials[0].Domain != "somewhere.example.com" {
		t.Errorf("denials: %+v %v", reply.Denials, err)
	}
}

// A sandbox changes its mode while it runs, to one with a network and back, and leaves no wire behind.
func TestTheModeChangesWhileASandboxRuns(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := boxOf(t, b, sandbox.Spec{Name: "changing", Egress: egress.None})
	set := func(mode egress.Mode) {
		t.Helper()
		if _, err := b.SetEgress(t.Context(), made.ID, func(_ egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) { return mode, own, nil }); err != nil {
			t.Fatal(err)
		}
		if e, err := b.Egress(t.Context(), made.ID); err != nil || e.Mode != mode || !e.Enforced {
			t.Errorf("mode %s: %+v %v", mode, e, err)
		}
	}
	set(egress.Allowlist)
	wire := wireOf(t, b, made.ID)
	soon(t, "it has its address", func() bool {
		got, err := b.Get(t.Context(), made.Owner, "changing")
		return err == nil && got.Address == wire.Address.String()
	})
	set(egress.None)
	if err := b.SetState(t.Context(), made.ID, sandbox.Stopped); err != nil {
		t.Fatal(err)
	}
	reply, err := b.wires.ask(t.Context(), gateway.Request{Op: gateway.Wires})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range reply.Wires {
		if w.Sandbox == made.ID {
			t.Errorf("stopped, it is still on %+v", w)
		}
	}
	if err := b.SetState(t.Context(), made.ID, sandbox.Running); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, b, made.ID, "ls /sys/class/net"); got != "lo" {
		t.Errorf("in mode none it has %q", got)
	}
}

// A running sandbox whose wire went away, with nothing of its name left on the host, gets another one, also when Incus
// was asked to take its card away and failed, whereupon it forgets what the card was called on the host.
func TestALostWireIsReplaced(t *testing.T) {
	t.Parallel()
	for _, forgotten := range []bool{false, true} {
		t.Run(fmt.Sprintf("forgotten=%t", forgotten), func(t *testing.T) {
			l := newLab(t)
			id := l.box(t, "one", egress.Allowlist, allowedName).ID
			wire := wireOf(t, l.Backend, id)
			l.wires.hush() // of itself it would see to it before we are ready
			l.background.Wait()
			op, err := l.server.with(context.Background()).UpdateInstanceState(l.wires.name, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
			if _, err = finish(t.Context(), l.server, op, err); err != nil {
				t.Fatal(err)
			}
			soon(t, "the kernel has taken the wires away", func() bool { return !strings.Contains(l.run(t, "one", "ls", "/sys/class/net"), card) })
			if err := startGateway(t.Context(), l.server, l.wires.name); err != nil {
				t.Fatal(err)
			}
			err = edit(t.Context(), l.server, l.wires.name, func(put *api.InstancePut) error {
				delete(put.Devices, gateway.Interface(wire.Number))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if forgotten {
				if err := l.setCard(t.Context(), id, nil, ""); err == nil {
					t.Fatal("Incus took the card away by itself")
				}
			}
			for end := time.Now().Add(20 * time.Second); ; {
				l.sweepWires(t)
				out := l.try(t, "one", "tcp", allowedName+":80", "-host", allowedName)
				if strings.Contains(out, "200 OK") {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("it has no way out again: %s", out)
				}
			}
			inst, _, err := l.server.with(context.Background()).GetInstance(id)
			if err != nil || inst.Config["volatile."+card+".last_state.pci.slot.name"] != "" {
				t.Errorf("what was told to Incus stays: %v %v", inst.Config, err)
			}
		})
	}
}

// What a server knew of the keys before another one changed them is not what it has the gateway enforce.
func TestAnOldSweepBringsNothingBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	id := l.box(t, "one", egress.Allowlist, allowedName).ID
	old, err := l.cache.fresh(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(slices.Collect(maps.Keys(old)), id) {
		t.Fatal("the sandbox is not known")
	}
	l.set(t, "one", egress.None)
	for range 2 {
		if err := l.mendWires(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		inst, _, err := l.server.with(context.Background()).GetInstance(id)
		if err != nil {
			t.Fatal(err)
		}
		if wire := wireOf(t, l.Backend, id); wire.Mark != mark(inst.Config) {
			t.Errorf("the gateway enforces %s, the keys are %s", wire.Mark, mark(inst.Config))
		}
	}
	// Nor does what was read before a change, and told after it.
	if _, err := l.enforce(t.Context(), id, old[id].Config); err != nil {
		t.Fatal(err)
	}
	if e, err := l.Egress(t.Context(), id); err != nil || e.Mode != egress.None || !e.Enforced {
		t.Errorf("it is %+v, %v", e, err)
	}
}

// Whenever in a start its wire goes, the sandbox gets another one.
func TestAWireThatGoesWhileASandboxStarts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	id := l.box(t, "one", egress.Allowlist, allowedName).ID
	const span = 120 * time.Millisecond // from its taking of the wire to its first process
	rounds := testenv.Rounds(5, 60)
	for round := range rounds {
		after := span * time.Duration(round) / time.Duration(rounds)
		if err := l.SetState(t.Context(), id, sandbox.Stopped); err != nil {
			t.Fatal(err)
		}
		started := make(chan error, 1)
		go func() { started <- l.SetState(t.Context(), id, sandbox.Running) }()
		var wire *gateway.Wire
		soon(t, "it is on a wire", func() bool {
			reply, err := l.wires.ask(t.Context(), gateway.Request{Op: gateway.Status, Sandbox: id})
			wire = reply.Wire
			return err == nil
		})
		time.Sleep(after)
		err := edit(t.Context(), l.server, l.wires.name, func(put *api.InstancePut) error {
			delete(put.Devices, gateway.Interface(wire.Number))
			return nil
		})
		if err != nil {
			t.Logf("after %s it is neither here nor there, and stays: %v", after, err)
		}
		if err := <-started; err != nil {
			t.Errorf("its wire went after %s: %v", after, err)
			continue
		}
		soon(t, "it has a way out", func() bool {
			l.sweepWires(t)
			return strings.Contains(l.try(t, "one", "tcp", allowedName+":80", "-host", allowedName), "200 OK")
		})
	}
}

// A card that is gone is brought back, also to a sandbox that got it in this run of the gateway.
func TestALostCardIsBroughtBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.box(t, "one", egress.Allowlist, allowedName)
	for range 2 {
		l.run(t, "one", "ip", "link", "delete", card)
		soon(t, "it has a way out again", func() bool {
			l.sweepWires(t)
			return strings.Contains(l.try(t, "one", "tcp", allowedName+":80", "-host", allowedName), "200 OK")
		})
	}
}

// refusing is an Incus that takes a change of a sandbox and fails to make it.
type refusing struct{ client.InstanceServer }

func (r refusing) UpdateInstance(name string, put api.InstancePut, etag string) (client.Operation, error) {
	put.Config["limits.memory"] = "none"
	return r.InstanceServer.UpdateInstance(name, put, etag)
}

func TestAGrantThatIncusRefusesIsUndone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	id := l.box(t, "one", egress.Allowlist).ID
	before := wireOf(t, l.Backend, id).Mark
	sound := l.Backend.server
	l.Backend.server = &daemon{project: sound.project, bind: func(ctx context.Context) client.InstanceServer { return refusing{sound.with(ctx)} }}
	var told string
	err := l.change(t.Context(), id, func(config map[string]string) error { config[labelKeys+"a"] = "b"; return nil }, func(config map[string]string) { told = "told" })
	if err == nil || told == "" {
		t.Fatalf("Incus is to take a change and fail: %v", err)
	}
	_, err = l.SetEgress(t.Context(), id, func(egress.Mode, []egress.Grant) (egress.Mode, []egress.Grant, error) {
		return egress.Unrestricted, nil, nil
	})
	if err == nil {
		t.Error("a grant that is refused succeeds")
	}
	if e, err := l.Egress(t.Context(), id); err != nil || e.Mode != egress.Allowlist || !e.Enforced || wireOf(t, l.Backend, id).Mark != before {
		t.Errorf("after it: %+v, %v", e, err)
	}
}

// What an incusd that was killed in the middle left is deleted: an interface of the gateway that is no device of it, and a
// pair on the host whose name is needed. Another thing of that name is passed by. Where there is no such thing Incus is not asked
// what it does.
func TestStraysAreDeleted(t *testing.T) {
	t.Parallel()
	realBackend(t)
	way := &counter{socket: filepath.Join(t.TempDir(), "socket")}
	way.listen(t)
	t.Cleanup(way.cut)
	g := takeGround(t)
	direct := g.settings.Socket
	g.settings.Socket = way.socket
	l := labOn(t, g)
	g.settings.Socket = direct
	l.background.Wait()
	list := func() map[int]gateway.Wire {
		reply, err := l.wires.ask(t.Context(), gateway.Request{Op: gateway.Wires})
		if err != nil {
			t.Fatal(err)
		}
		byNumber := map[int]gateway.Wire{}
		for _, wire := range reply.Wires {
			byNumber[wire.Number] = wire
		}
		return byNumber
	}
	l.spoilt = true
	next := 0
	for number := range list() {
		next = max(next, number+1)
	}
	inst, _, err := l.server.with(context.Background()).GetInstanceState(l.wires.name)
	if err != nil {
		t.Fatal(err)
	}
	pid := strconv.FormatInt(inst.Pid, 10)
	link := func(number int, rest ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "ip", append([]string{"link", "add", l.wires.hostEnd(number), "type"}, rest...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "link", "delete", l.wires.hostEnd(number)).Run() })
	}
	taken, free, pair, foreign, far := next, next+1, next+2, next+3, next+50
	before := len(list())
	link(taken, "veth", "peer", "name", gateway.Interface(taken), "netns", pid)
	link(free, "veth", "peer", "name", gateway.Interface(free), "netns", pid)
	link(pair, "veth")
	link(foreign, "bridge")
	link(far, "veth") // its number is not needed
	soon(t, "the gateway sees them", func() bool { return len(list()) == before+2 })
	for number := range before { // so that a sandbox gets a stray one
		if _, err := l.wires.ask(t.Context(), gateway.Request{Op: gateway.Take, Sandbox: strconv.Itoa(number), Policy: &egress.Policy{}}); err != nil {
			t.Fatal(err)
		}
	}
	was := list()[free]
	l.box(t, "one", egress.Allowlist, allowedName)
	reached := func() bool {
		return strings.Contains(l.try(t, "one", "tcp", allowedName+":80", "-host", allowedName), "200 OK")
	}
	if list()[taken].State != gateway.Taken || !reached() {
		t.Fatalf("a sandbox on a stray wire has no way out: %+v", list()[taken])
	}
	if err := l.wires.tend(t.Context(), 4, 4); err != nil {
		t.Fatal(err)
	}
	now := list()
	if now[free].Index == was.Index || now[pair].State != gateway.Free {
		t.Errorf("what was left is %+v and %+v", now[free], now[pair])
	}
	if _, err := net.InterfaceByName(l.wires.hostEnd(far)); err == nil {
		t.Error("a pair that never came to be a wire lies on the host still")
	}
	if _, err := net.InterfaceByName(l.wires.hostEnd(foreign)); err != nil {
		t.Error("a foreign interface was deleted")
	}
	if _, there := now[foreign]; there {
		t.Error("the name of a foreign interface is taken")
	}
	if now[taken].State != gateway.Taken || !reached() {
		t.Error("the sandbox on a stray wire lost its way out")
	}
	if inst, _, err := l.server.with(context.Background()).GetInstance(l.wires.name); err != nil || inst.Devices[gateway.Interface(pair)] == nil || inst.Devices[gateway.Interface(taken)] != nil {
		t.Errorf("devices: %v %v", inst.Devices, err)
	}
	asked := way.lists.Load()
	more := len(now) + 1
	if err := l.wires.tend(t.Context(), more, more); err != nil {
		t.Fatal(err)
	}
	if asked == 0 || way.lists.Load() != asked {
		t.Errorf("Incus was asked what it does %d times, and %d times where nothing is astray", asked, way.lists.Load()-asked)
	}
}

// A gateway that is there and does not answer fails what needs it, and holds nothing up for good.
func TestAPausedGateway(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	id := l.box(t, "one", egress.Allowlist).ID
	state := func(action string) {
		t.Helper()
		op, err := l.server.with(context.Background()).UpdateInstanceState(l.wires.name, api.InstanceStatePut{Action: action, Timeout: -1}, "")
		if _, err = finish(t.Context(), l.server, op, err); err != nil {
			t.Fatal(err)
		}
	}
	state("freeze")
	t.Cleanup(func() {
		op, err := l.server.with(context.Background()).UpdateInstanceState(l.wires.name, api.InstanceStatePut{Action: "unfreeze", Timeout: -1}, "")
		_, _ = finish(context.Background(), l.server, op, err)
	})
	start := time.Now()
	_, err := l.SetEgress(t.Context(), id, func(egress.Mode, []egress.Grant) (egress.Mode, []egress.Grant, error) {
		return egress.None, nil, nil
	})
	if err == nil || !strings.Contains(err.Error(), "paused?") {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	t.Logf("after %s: %v", time.Since(start), err)
	e, err := l.Egress(t.Context(), id)
	t.Logf("%+v %v", e, err)
	if err != nil || e.Enforced || !strings.Contains(e.Why, "paused?") {
		t.Errorf("%+v %v", e, err)
	}
	state("unfreeze")
	soon(t, "the gateway enforces what was set", func() bool {
		l.sweepWires(t)
		e, err := l.Egress(t.Context(), id)
		return err == nil && e.Mode == egress.None && e.Enforced
	})
}

// Who looks for a gateway that is just being deleted finds it stopped, can't start it, and hears that there is none.
func TestAGatewayThatGoesIsMissing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.wires.hush()
	l.background.Wait()
	op, err := l.server.with(context.Background()).UpdateInstanceState(l.wires.name, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
	if _, err = finish(t.Context(), l.server, op, err); err != nil {
		t.Fatal(err)
	}
	op, err = l.server.commit(t.Context()).DeleteInstance(l.wires.name)
	if err != nil {
		t.Fatal(err)
	}
	var asked sync.WaitGroup
	for range 20 {
		o := &opening{done: make(chan struct{})}
		asked.Go(func() { l.wires.open(o) })
		time.Sleep(3 * time.Millisecond)
		asked.Go(func() {
			<-o.done
			if want := errNoGateway(l.wires.name); o.err == nil || o.err.Error() != want.Error() {
				t.Errorf("it hears %v, not %v", o.err, want)
			}
		})
	}
	asked.Wait()
	if _, err := finish(t.Context(), l.server, op, nil); err != nil {
		t.Error(err)
	}
}
