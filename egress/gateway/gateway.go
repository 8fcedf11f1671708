// Package gateway is the one way out of sandboxes: a program that stands between wires, one network interface for each
// sandbox, and an uplink. It answers every name with an address of its own making, takes every TCP connection, checks it
// against the policy of the sandbox on whose wire it came, and connects it to where the name really is. All else is
// refused by nftables. It decides nothing: policies come over its control channel, and what is on no wire that it was
// told of gets nothing.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"pixels/egress"
)

// Config is what a gateway must know of the place it stands in.
type Config struct {
	Uplink    string         // interface to the outside
	Address   netip.Prefix   // of the uplink, with the network that it is in
	Host      netip.Addr     // router of that network; it alone may open connections to sandboxes
	Resolver  netip.AddrPort // DNS server that is asked for the addresses of allowed names
	First     netip.Addr     // address of the sandbox on wire 0; wire n has the n-th after it
	Wires     int            // how many addresses there are from First on
	Dir       string         // folder where policies are kept, on a disk that outlasts a restart
	Socket    string         // path of the control socket
	StrictECH bool           // refuse TLS with an Encrypted Client Hello, real or feigned
}

// Gateway holds what is on which wire, and with which policy.
type Gateway struct {
	config Config
	log    zerolog.Logger
	store  store
	filter *filter

	serving   context.Context // until its end what is new is served
	listening chan struct{}   // one for each of listeners that is open
	flowing   sync.WaitGroup  // connections
	mu        sync.Mutex
	wires     map[int]*wire        // by number
	byAddress map[netip.Addr]*wire // those that a sandbox is on
	bySandbox map[string]*wire     // the same
	watchers  map[*watcher]struct{}
	answering int // how many watch who answer for connections that are held
	bytes     int // that all connections are charged with
	denying   int // denials that are being told to clients
	seq       uint64
}

// Run is the life of a gateway: until ctx ends, or it fails. It begins closed: rules are in force before any interface is
// up, and wires get what its disk says and nothing else. When handOver ends, it leaves all that is new to a successor, and
// lives on for the connections that it has, as long as the policies that the successor keeps on the disk allow them.
func Run(ctx, handOver context.Context, config Config, log zerolog.Logger) error {
	g := &Gateway{
		config: config, log: log, store: store{filepath.Clean(config.Dir)},
		listening: make(chan struct{}, listeners), wires: map[int]*wire{}, byAddress: map[netip.Addr]*wire{}, bySandbox: map[string]*wire{}, watchers: map[*watcher]struct{}{},
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return fmt.Errorf("gateway: keep policies: %w", err)
	}
	var err error
	if g.filter, err = newFilter(config); err != nil {
		return fmt.Errorf("gateway: load rules: %w", err)
	}
	if err := uplink(config); err != nil {
		return fmt.Errorf("gateway: uplink %s: %w", config.Uplink, err)
	}
	ctx, end := context.WithCancel(ctx)
	defer g.flowing.Wait()
	defer end()
	serving, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(handOver, stop)()
	group, serving := errgroup.WithContext(serving)
	g.serving = serving
	for what, serve := range map[string]func(context.Context) error{
		"watch wires": g.watchWires, "DNS": g.serveDNS, "DHCP": g.serveDHCP, "control": g.serveControl, "bound buffers": g.boundBuffers, "keep the host": g.keepHost,
		"proxy": func(serving context.Context) error { return g.serveProxy(serving, ctx) },
	} {
		group.Go(func() error {
			if err := serve(serving); err != nil && serving.Err() == nil {
				return fmt.Errorf("gateway: %s: %w", what, err)
			}
			return nil
		})
	}
	err = group.Wait()
	if handOver.Err() != nil && ctx.Err() == nil {
		g.drain(ctx)
	}
	return err
}

// listeners is how many sockets a gateway serves sandboxes on: DNS by UDP and by TCP, DHCP, and the proxy. Once all are open,
// so is the control channel: who is answered there finds a gateway that serves.
const listeners = 4

// drainEvery is how often a gateway that has a successor looks what that allows.
const drainEvery = 100 * time.Millisecond

// drain returns when the connections that there are have ended.
func (g *Gateway) drain(ctx context.Context) {
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for {
		left := 0
		g.mu.Lock()
		for _, w := range g.wires {
			if len(w.flows) == 0 {
				continue
			}
			k, ok, err := g.store.load(w.number)
			for f := range w.flows {
				if err != nil || !ok || k.Sandbox != w.sandbox || !f.allowed(k.Policy) {
					f.cut()
				}
				left++
			}
		}
		g.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shared has a socket share its port with a successor's, or a predecessor's, for the moment that both have one.
func shared(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(err, failed)
}

// on returns the wire that an address is on, nil when no sandbox has it. That a packet with a sandbox's address came over
// its wire is what nftables made sure of before any socket saw it.
func (g *Gateway) on(remote net.Addr) *wire {
	var from netip.AddrPort
	switch a := remote.(type) {
	case *net.TCPAddr:
		from = a.AddrPort()
	case *net.UDPAddr:
		from = a.AddrPort()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.byAddress[from.Addr().Unmap()]
}

// What a caller of the control channel did wrong, or can't have.
var (
	ErrNoWire    = errors.New("no wire is free")
	ErrNoSandbox = errors.New("no such sandbox on a wire")
)

// Take puts a sandbox with its policy on a free wire. A wire that was taken is never free again, until its interface was
// made anew. A sandbox that is on one already gets that one, with the policy given now.
// mark names the policy, and is shown with the wire.
func (g *Gateway) Take(sandbox string, policy egress.Policy, mark string) (Wire, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.bySandbox[sandbox]; w != nil {
		w.since = time.Now()
		_, err := g.change(w, policy, mark)
		return w.shown(), err
	}
	var w *wire
	for _, each := range g.wires {
		if each.state == Free && (w == nil || each.number < w.number) {
			w = each
		}
	}
	if w == nil {
		return Wire{}, ErrNoWire
	}
	policy = w.withOnce(policy)
	if err := g.store.save(w.number, kept{Sandbox: sandbox, Policy: policy, Mark: mark}); err != nil {
		return Wire{}, fmt.Errorf("keep the policy of %s: %w", sandbox, err)
	}
	err := g.filter.forget(w)
	if err == nil {
		err = g.attach(w, sandbox, policy, mark)
	}
	if err != nil {
		return Wire{}, errors.Join(err, g.detach(w))
	}
	return w.shown(), nil
}

// Set changes the policy of a sandbox and cuts its connections that the new one doesn't allow, which it counts. When the
// policy can't be kept on disk, what was taken away is taken away all the same, and nothing is added.
func (g *Gateway) Set(sandbox string, policy egress.Policy, mark string) (cut int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w, err := g.find(sandbox)
	if err != nil {
		return 0, err
	}
	return g.change(w, policy, mark)
}

// find returns the wire that a sandbox is on, or ErrNoSandbox. g.mu is held.
func (g *Gateway) find(sandbox string) (*wire, error) {
	w := g.bySandbox[sandbox]
	if w == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoSandbox, sandbox)
	}
	return w, nil
}

// Drop ends the stay of a sandbox on its wire, and all its connections. One that is on none is no error.
func (g *Gateway) Drop(sandbox string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.bySandbox[sandbox]; w != nil {
		return g.detach(w)
	}
	return nil
}

// Delete deletes the interface with an index, and with it what lies at the wire's other end. That of a wire with a sandbox
// on it is refused, and one that is not there is no error.
func (g *Gateway) Delete(index int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.wires {
		if w.index != index {
			continue
		}
		if w.state == Taken {
			return fmt.Errorf("wire %d has the sandbox %s on it", w.number, w.sandbox)
		}
		err := netlink.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}})
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete wire %d: %w", w.number, err)
		}
		w.state = Used // until the kernel says that it is gone
		return nil
	}
	return nil
}

func (g *Gateway) attach(w *wire, sandbox string, policy egress.Policy, mark string) error {
	w.state, w.sandbox, w.policy, w.mark, w.since = Taken, sandbox, policy, mark, time.Now()
	w.names, w.answers = newNames(), map[string]answer{}
	g.expire(w)
	g.byAddress[w.address], g.bySandbox[sandbox] = w, w
	g.shareNames()
	g.serveQuestions(w)
	return g.filter.admit(w, policy.Mode == egress.Unrestricted)
}

func (g *Gateway) detach(w *wire) error {
	err := errors.Join(g.filter.expel(w), g.store.save(w.number, kept{Used: w.index}))
	if w.stopQuestions != nil {
		w.stopQuestions()
		w.stopQuestions = nil
	}
	delete(g.byAddress, w.address)
	delete(g.bySandbox, w.sandbox)
	g.shareNames()
	w.state, w.policy = Used, egress.Policy{}
	if off(ProtectWireRenewal) {
		w.state = Free
	}
	for f := range w.flows {
		g.end(w, f)
	}
	w.wake()
	g.expire(w)
	w.sandbox = ""
	return err
}

func (g *Gateway) change(w *wire, policy egress.Policy, mark string) (cut int, err error) {
	policy = w.withOnce(policy)
	if err := g.store.save(w.number, kept{Sandbox: w.sandbox, Policy: policy, Mark: mark}); err != nil {
		// What the disk has may allow what was taken back just now: after a restart the wire had better be closed.
		policy, mark = w.policy.Both(policy), ""
		err = errors.Join(fmt.Errorf("keep the policy of %s: %w; what it had was taken from it", w.sandbox, err), g.store.remove(w.number))
		cut, err2 := g.enforce(w, policy, mark)
		return cut, errors.Join(err, err2)
	}
	return g.enforce(w, policy, mark)
}

func (g *Gateway) enforce(w *wire, policy egress.Policy, mark string) (cut int, err error) {
	if off(ProtectChanges) {
		return 0, nil
	}
	was := w.policy.Mode
	w.policy, w.mark = policy, mark
	g.expire(w)
	w.wake()
	if open := policy.Mode == egress.Unrestricted; open != (was == egress.Unrestricted) {
		cut, err = g.filter.open(w, open)
	}
	return cut + g.cutDenied(w), err
}

// end resets a connection, and says so. It tells whether there was anything to reset.
func (g *Gateway) end(w *wire, f *flow) bool {
	was := f.cut()
	if was {
		g.tell(w, Event{Verdict: Cut, Domain: f.name, Address: f.address, Port: f.port, Reason: "no longer allowed"})
	}
	return was
}

// maxText bounds each text of an event, in bytes: much of it is the word of strangers.
const maxText = 300

// tell sends an event about a sandbox to all who watch, and keeps it when it is a denial. g.mu is held.
func (g *Gateway) tell(w *wire, e Event) {
	e.Time, e.Sandbox = time.Now().UTC(), w.sandbox
	for _, text := range []*string{&e.Sandbox, &e.Domain, &e.Address, &e.Once, &e.Reason, &e.Rule} {
		if len(*text) > maxText {
			*text = strings.ToValidUTF8((*text)[:maxText-3], "") + "..."
		}
	}
	if e.Verdict == Denied {
		w.remember(e)
	}
	g.announce(w, e)
}

// announce sends an event to all who watch. g.mu is held.
func (g *Gateway) announce(w *wire, e Event) {
	g.seq++
	e.Seq = g.seq
	for watcher := range g.watchers {
		watcher.put(w, e)
	}
}

// report is tell for those who don't hold g.mu.
func (g *Gateway) report(w *wire, e Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tell(w, e)
}
