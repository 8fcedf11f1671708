package incus

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"pixels/egress/gateway"
	"pixels/internal/fakenet"
	"pixels/sandbox"
)

// mostGrounds is how many tests can use a ground at once.
const mostGrounds = 3

// ground is what a lab stands on: an Incus project, a network, its gateway and a fake internet. They take seconds to make,
// so that one test after the other uses them, each with all of it to itself.
type ground struct {
	number   int
	keeper   *keeper
	settings Config
	p        *Provisioner
	inet     *fakenet.Internet
	packets  *fakenet.Packets // that arrived at the internet; nil where that is routed
	network  netip.Prefix
	place    func(*gateway.Config)
	spoilt   bool // nobody is to use it after this test
}

// grounds are those that no test uses, built or not.
var grounds = sync.OnceValue(func() chan *ground {
	all := make(chan *ground, mostGrounds)
	for number := range mostGrounds {
		all <- newGround(nil, number)
	}
	return all
})

// takeGround returns a ground for the time of a test.
func takeGround(t *testing.T) *ground {
	t.Helper()
	g := <-grounds()
	g.keeper.TB = t
	t.Cleanup(func() { g.release(t) })
	if g.p == nil {
		g.build(func() {
			g.inet.Plug("up0", g.settings.Network, fmt.Sprintf("pxi%dn%d", os.Getpid(), g.number))
			g.inet.Address("up0", g.upstream()+"/22")
			g.packets = g.inet.Watch("up0", g.upstream())
		})
	}
	return g
}

// newGround is a ground that is to be built, with the number-th network.
func newGround(t testing.TB, number int) *ground {
	network := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 164, byte(4 * number), 1}), 22)
	g := &ground{number: number, keeper: &keeper{TB: t}, network: network}
	g.place = func(c *gateway.Config) { c.Host = netip.MustParseAddr(g.upstream()) }
	g.settings = Config{
		Project: fmt.Sprintf("%s-%d", testName(), number), Network: fmt.Sprintf("pxlab%d-%d", os.Getpid(), number),
		stock: stock{2, 8},
	}
	g.settings.place = func(c *gateway.Config) {
		c.StrictECH, c.Resolver = true, netip.MustParseAddrPort(fakenet.DNS+":53")
		g.place(c)
	}
	return g
}

// host, gatewayAddress and upstream are the addresses that the machine, the gateway and the internet have on the network.
func (g *ground) host() string           { return g.network.Addr().String() }
func (g *ground) gatewayAddress() string { return g.network.Addr().Next().String() }
func (g *ground) upstream() string       { return g.network.Addr().Next().Next().String() }

// build makes all of a ground. join brings its internet to where the gateway looks for it.
func (g *ground) build(join func()) {
	g.keeper.Helper()
	local, err := OpenProvisioner(context.Background(), Config{})
	if err != nil {
		g.keeper.Fatal(err)
	}
	createProject(g.keeper, local.server, g.settings.Project)
	if g.p, err = OpenProvisioner(context.Background(), g.settings); err != nil {
		g.keeper.Fatal(err)
	}
	g.inet = fakenet.NewInternet(g.keeper)
	g.keeper.Cleanup(func() {
		err := g.p.DeleteGateway(context.Background())
		if errors.Is(err, sandbox.ErrNotFound) { // of a test that failed while it made one
			err = nil
		}
		_, ruled := HostRules{Bridge: g.settings.Network}.Remove(context.Background()) // a server that a test ran made them
		if err := errors.Join(err, ruled, g.p.DeleteNetwork(context.Background())); err != nil {
			g.keeper.Error(err)
		}
	})
	if err := g.p.CreateNetwork(context.Background(), g.network.String(), 0); err != nil {
		g.keeper.Fatal(err)
	}
	join()
	if err := g.p.CreateGateway(context.Background()); err != nil {
		g.keeper.Fatal(err)
	}
}

// release gives the ground to the next test, or another one that is to be built where this test failed or spoilt it.
func (g *ground) release(t *testing.T) {
	next := newGround(nil, g.number)
	defer func() { grounds() <- next }()
	if !t.Failed() && !g.spoilt {
		if err := g.mend(); err != nil {
			t.Errorf("mend the lab's ground: %v", err)
		}
	}
	if t.Failed() || g.spoilt {
		g.keeper.close()
		return
	}
	next = g
}

// mend brings a ground back to what a test expects: an internet that knows nothing, a host without rules of its own for the
// bridge, a gateway with all protections, and all wires free.
func (g *ground) mend() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g.inet.Forget()
	if _, err := (HostRules{Bridge: g.settings.Network}).Remove(ctx); err != nil { // with them no sandbox on the bridge itself gets an address
		return err
	}
	have, err := g.p.Gateway(context.Background())
	switch {
	case err != nil:
		return err
	case have == nil:
		err = g.p.CreateGateway(ctx)
	case !have.Running:
		err = g.p.StartGateway(ctx)
	}
	if err == nil && have != nil && !have.Current {
		err = g.p.RenewGateway(ctx)
	}
	if err != nil {
		return err
	}
	b, err := OpenBackend(g.settings)
	if err != nil {
		return err
	}
	defer b.Close()
	for {
		all, err := b.cache.fresh(context.Background())
		if err == nil {
			err = errors.Join(b.mendWires(ctx, all), b.wires.tend(ctx, 1<<20, b.wires.stock.enough)) // also those that nobody needs yet
		}
		var reply gateway.Reply
		if err == nil {
			reply, err = b.wires.ask(ctx, gateway.Request{Op: gateway.Wires})
		}
		if err == nil && len(reply.Wires) == countFree(reply.Wires) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the wires are %+v, %v, %w", reply.Wires, err, ctx.Err())
		}
	}
}

// closeGrounds ends all of them, when the tests have ended.
func closeGrounds() (err error) {
	for range mostGrounds {
		g, last := <-grounds(), &ending{}
		g.keeper.TB = last
		g.keeper.close()
		err = errors.Join(err, last.err)
	}
	return err
}

// keeper is the testing.TB of what outlives a test: it fails the test that uses it now, and cleans up when it is closed.
type keeper struct {
	testing.TB
	cleanups []func()
}

func (k *keeper) Cleanup(f func()) { k.cleanups = append(k.cleanups, f) }

func (k *keeper) close() {
	for len(k.cleanups) > 0 {
		last := len(k.cleanups) - 1
		f := k.cleanups[last]
		k.cleanups = k.cleanups[:last]
		f()
	}
}

// ending takes the errors of what ends after the last test.
type ending struct {
	testing.TB
	err error
}

func (*ending) Helper()             {}
func (e *ending) Error(args ...any) { e.err = errors.Join(e.err, errors.New(fmt.Sprint(args...))) }
func (e *ending) Errorf(format string, args ...any) {
	e.err = errors.Join(e.err, fmt.Errorf(format, args...))
}
