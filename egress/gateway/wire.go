package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pixels/egress"
	"pixels/internal/neighbour"
)

// State is what a wire is good for.
type State string

// The states of a wire. A used one had a sandbox on it; it is good for nothing until it was made anew.
const (
	Free  State = "free"
	Taken State = "taken"
	Used  State = "used"
)

// Wire is a wire as the control channel shows it.
type Wire struct {
	Number  int        `json:"number"`
	Index   int        `json:"index"` // of the gateway's interface, which no other one has as long as it is there
	State   State      `json:"state"`
	Address netip.Addr `json:"address"`
	Sandbox string     `json:"sandbox,omitempty"`
	Mark    string     `json:"mark,omitempty"`  // names the policy; empty when the one that was asked for couldn't be kept
	Taken   float64    `json:"taken,omitempty"` // for how long, in seconds
}

// Verdict is what became of a connection.
type Verdict string

// The verdicts. Failed is a connection that was allowed and couldn't be made.
const (
	Allowed Verdict = "allowed"
	Denied  Verdict = "denied"
	Cut     Verdict = "cut"
	Failed  Verdict = "failed"
	Ended   Verdict = "ended"
	Held    Verdict = "held" // it waits until its policy allows it, or the time is over that Hold gave it
)

// Event is one connection's fate. Events of one gateway are numbered.
type Event struct {
	Seq      uint64    `json:"seq"`
	Time     time.Time `json:"time"`
	Sandbox  string    `json:"sandbox"`
	Verdict  Verdict   `json:"verdict"`
	Domain   string    `json:"domain,omitempty"`
	Address  string    `json:"address,omitempty"` // where it went, or was to go when it had no name
	Port     uint16    `json:"port"`
	From     uint16    `json:"from,omitempty"` // the sandbox's own port
	Once     string    `json:"once,omitempty"` // the grant for one connection that let it out
	Reason   string    `json:"reason,omitempty"`
	Rule     string    `json:"rule,omitempty"`
	Sent     int64     `json:"sent,omitempty"`     // bytes out of the sandbox
	Received int64     `json:"received,omitempty"` // bytes into it
	Count    int       `json:"count,omitempty"`    // of denials: how often in a row, where it isn't once
}

// wire is one interface to one sandbox. All of it is guarded by Gateway.mu, but for names, which guards itself.
type wire struct {
	number  int
	index   int        // of the interface
	address netip.Addr // of the sandbox
	state   State
	sandbox string
	policy  egress.Policy
	mark    string
	since   time.Time // taken
	names   *names
	flows   map[*flow]struct{}
	bytes   int // that its connections are charged with
	denying int // denials that are being told to clients
	asking  int // questions that are passed on
	fulls   int // connections that there was no room for, since it was last told
	denials []Event
	held    int               // connections that are held
	answers map[string]answer // what was said of those, by where to
	changed chan struct{}     // closed, and made anew, when they are to look again
	expiry  *time.Timer       // of the next grant

	stopQuestions func() // ends serveQuestions
}

func (w *wire) name() string { return Interface(w.number) }

func (w *wire) shown() Wire {
	shown := Wire{Number: w.number, Index: w.index, State: w.state, Address: w.address, Sandbox: w.sandbox}
	if w.state == Taken {
		shown.Mark, shown.Taken = w.mark, time.Since(w.since).Seconds()
	}
	return shown
}

// keptDenials is how many different denials are remembered for each sandbox.
const keptDenials = 64

func (w *wire) remember(e Event) {
	e.Count = max(e.Count, 1)
	for i, old := range w.denials {
		if old.Domain == e.Domain && old.Address == e.Address && old.Port == e.Port && old.Reason == e.Reason {
			e.Count += old.Count
			w.denials = append(w.denials[:i], w.denials[i+1:]...)
			break
		}
	}
	if len(w.denials) == keptDenials {
		w.denials = w.denials[1:]
	}
	w.denials = append(w.denials, e)
}

// wirePrefix is how the names of wires begin; a number follows.
const wirePrefix = "w"

// Interface is the name of the gateway's interface to a wire.
func Interface(number int) string { return wirePrefix + strconv.Itoa(number) }

// WireNumber reads the number of a wire from the name of its interface.
func WireNumber(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, wirePrefix)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n >= 0 && strconv.Itoa(n) == digits
}

// address returns the n-th address after first.
func address(first netip.Addr, n int) netip.Addr {
	b := first.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}

// watchWires brings up the wires that are there and those that come, until ctx ends.
func (g *Gateway) watchWires(ctx context.Context) error {
	changes := make(chan netlink.LinkUpdate, 256)
	done := make(chan struct{})
	defer close(done)
	failed := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(changes, done, netlink.LinkSubscribeOptions{
		ListExisting:  true,
		ErrorCallback: func(err error) { failed <- err },
	})
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case change := <-changes:
			number, ok := WireNumber(change.Link.Attrs().Name)
			if !ok || number >= g.config.Wires {
				continue
			}
			if change.Header.Type == unix.RTM_DELLINK {
				g.gone(number, change.Link.Attrs().Index)
			} else if err := g.here(number, change.Link); err != nil {
				g.log.Error().Err(err).Int("wire", number).Msg("bring up a wire")
			}
		}
	}
}

// here takes note of a wire's interface, and brings it up when it is new. A policy that the disk has for its number is in
// force before it is up.
func (g *Gateway) here(number int, link netlink.Link) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	attrs := link.Attrs()
	if w := g.wires[number]; w != nil && w.index == attrs.Index {
		return nil
	} else if w != nil {
		g.forget(w) // its interface went without a word of it
	}
	w := &wire{number: number, index: attrs.Index, address: address(g.config.First, number), state: Free, flows: map[*flow]struct{}{}, answers: map[string]answer{}, changed: make(chan struct{})}
	g.wires[number] = w
	if k, ok, err := g.store.load(number); err != nil {
		g.log.Error().Err(err).Int("wire", number).Msg("read a policy; the wire stays closed")
	} else if ok && k.Sandbox != "" && g.bySandbox[k.Sandbox] == nil {
		if err := g.attach(w, k.Sandbox, k.Policy, k.Mark); err != nil {
			return err
		}
	} else if ok && k.Used == w.index { // another interface may have the index after a restart: then it is made anew for nothing
		w.state = Used
	}
	return bringUp(link, w)
}

func (g *Gateway) gone(number, index int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.wires[number]; w != nil && w.index == index {
		g.forget(w)
	}
}

func (g *Gateway) forget(w *wire) {
	if w.state == Taken {
		if err := g.detach(w); err != nil {
			g.log.Error().Err(err).Int("wire", w.number).Msg("forget what was on a wire")
		}
	}
	if err := g.store.remove(w.number); err != nil {
		g.log.Error().Err(err).Int("wire", w.number).Msg("forget a wire")
	}
	delete(g.wires, w.number)
}

// bringUp gives an interface the router's addresses and a route to the sandbox's, and no IPv6.
func bringUp(link netlink.Link, w *wire) error {
	if err := setting("ipv6/conf/"+w.name()+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if !bytes.Equal(link.Attrs().HardwareAddr, neighbour.RouterHardware) {
		// A sandbox that has another one still, from a gateway of an older version, is told.
		if err := setting("ipv4/conf/"+w.name()+"/arp_notify", "1"); err != nil {
			return err
		}
		if err := netlink.LinkSetHardwareAddr(link, neighbour.RouterHardware); err != nil {
			return fmt.Errorf("give it a hardware address: %w", err)
		}
	}
	own := &net.IPNet{IP: neighbour.Router.AsSlice(), Mask: net.CIDRMask(32, 32)}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: own, Scope: unix.RT_SCOPE_LINK}); err != nil {
		return fmt.Errorf("give it an address: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	to := &net.IPNet{IP: w.address.AsSlice(), Mask: net.CIDRMask(32, 32)}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: w.index, Dst: to, Scope: netlink.SCOPE_LINK, Src: neighbour.Router.AsSlice()}); err != nil {
		return fmt.Errorf("route to %s: %w", w.address, err)
	}
	return nil
}

// uplink brings up the interface to the outside. It answers there for the sandboxes' addresses (proxy ARP), so that the
// network sees each as a machine of its own.
func uplink(c Config) error {
	for key, value := range map[string]string{
		"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1", "ipv4/ip_forward": "1",
		// A gateway that was killed must not live on in the kernel as connections that wait for an answer: until they are gone,
		// so are not its interfaces, and sandboxes can't be plugged again.
		"ipv4/tcp_orphan_retries": "1", "ipv4/tcp_fin_timeout": "3",
		// Buffers begin small and grow with what is read from them, so that many connections which nobody reads hold little.
		"ipv4/tcp_rmem": "4096 32768 2097152", "ipv4/tcp_wmem": "4096 16384 2097152", "core/somaxconn": "512",
		"ipv4/conf/all/send_redirects": "0", "ipv4/conf/all/accept_redirects": "0",
		"ipv4/conf/" + c.Uplink + "/proxy_arp": "1", "ipv4/neigh/" + c.Uplink + "/proxy_delay": "0",
	} {
		if err := setting(key, value); err != nil {
			return err
		}
	}
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo) // the container has it up already, as a rule
	}
	// Connections that are under way are not taken for new ones. Where the kernel doesn't let this be set, the rules for what
	// begins a connection are enough.
	_ = setting("netfilter/nf_conntrack_tcp_loose", "0")
	link, err := netlink.LinkByName(c.Uplink)
	if err != nil {
		return err
	}
	own := &net.IPNet{IP: c.Address.Addr().AsSlice(), Mask: net.CIDRMask(c.Address.Bits(), 32)}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: own}); err != nil {
		return fmt.Errorf("give it the address %s: %w", c.Address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: c.Host.AsSlice()}); err != nil {
		return fmt.Errorf("set the default route by %s: %w", c.Host, err)
	}
	return nil
}

// keepHost keeps the host's hardware address, whatever sandboxes do to the table of neighbours.
func (g *Gateway) keepHost(ctx context.Context) error {
	link, err := netlink.LinkByName(g.config.Uplink)
	if err != nil {
		return err
	}
	for pause := 50 * time.Millisecond; ; {
		known, err := neighbour.KeepKnown(link.Attrs().Index, g.config.Host.AsSlice())
		switch {
		case err != nil:
			g.log.Error().Err(err).Msg("keep the host's hardware address")
			pause = 30 * time.Second
		case known:
			pause = 30 * time.Second
		default:
			_ = neighbour.Ask(link.Attrs().Index, g.config.Host.AsSlice()) // the next turn tells
			pause = min(2*pause, 5*time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// setting writes a network setting of the kernel. A kernel without IPv6 has none to switch off.
func setting(key, value string) error {
	err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0)
	if os.IsNotExist(err) && strings.HasPrefix(key, "ipv6/") {
		return nil
	}
	return err
}
