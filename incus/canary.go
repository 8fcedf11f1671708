package incus

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/canary"
	"pixels/internal/guest"
	"pixels/internal/guestbin"
	"pixels/sandbox"
)

// canaryKey, on the gateway's instance, is what a canary found: canaryFine, or the ways out, by which restricted modes are
// refused. While none was let out it is empty.
const (
	canaryKey  = "user.pixels.canary"
	canaryFine = "nothing got out"
)

// edgeKey, on the gateway's instance, is what a canary found of the host's own rules: edgeClosed, or what answered.
const (
	edgeKey    = "user.pixels.canary_host"
	edgeClosed = "nothing answers"
)

// canaryOwner has the canary's sandboxes. What a killed one left, its lease ends.
const canaryOwner = "pixels-canary"

// Canary makes two sandboxes that may reach nothing, tries in one of them the ways out that are known, as root, and returns
// those by which something arrived at this host, or was answered. It notes at the gateway what it found: when it is
// anything, sandboxes are refused the modes that promise to hold them, until another canary finds nothing. From a third
// sandbox, which may reach everything, it looks whether the host's own rules are in place, and notes that, too. An error
// means that it could not be tried.
func Canary(ctx context.Context, c Config) (ways []string, err error) {
	b, err := OpenBackend(c)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return b.canary(ctx)
}

func (b *Backend) canary(ctx context.Context) (ways []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	probe := canary.Probe{Word: strings.ToLower(rand.Text()), Names: gateway.Synthetic}
	network, _, err := b.server.GetNetwork(b.config.Network)
	if err != nil {
		return nil, fmt.Errorf("look up the network %q: %w", b.config.Network, err)
	}
	own, err := netip.ParsePrefix(network.Config["ipv4.address"])
	if err != nil {
		return nil, fmt.Errorf("the address of the network %q: %w", b.config.Network, err)
	}
	hears := &ears{word: probe.Word}
	port := uint16(9) // on another machine nobody listens, but it may answer
	if b.config.Remote == "" {
		if port, err = hears.open(); err != nil {
			return nil, fmt.Errorf("listen for the canary: %w", err)
		}
		defer hears.close()
		probe.Hosts, probe.MACs = ownAddresses(port)
	}
	edge := canary.Probe{Edge: []netip.AddrPort{netip.AddrPortFrom(own.Addr(), port)}}
	for _, host := range probe.Hosts {
		if !slices.Contains(edge.Edge, host) {
			edge.Edge = append(edge.Edge, host)
		}
	}
	if at := netip.AddrPortFrom(own.Addr(), port); !slices.Contains(probe.Hosts, at) {
		probe.Hosts = append(probe.Hosts, at)
	}
	var boxes []sandbox.Sandbox
	defer func() {
		for _, box := range boxes {
			if e := b.Destroy(context.WithoutCancel(ctx), box.ID); e != nil && !errors.Is(e, sandbox.ErrNotFound) {
				err = errors.Join(err, fmt.Errorf("remove the canary's sandbox: %w", e))
			}
		}
	}()
	for i, mode := range []egress.Mode{egress.Allowlist, egress.Allowlist, egress.Unrestricted} {
		box, err := b.Create(ctx, sandbox.Spec{
			Name: fmt.Sprintf("canary-%s-%d", probe.Word[:8], i), Owner: canaryOwner, Image: b.config.Image, Egress: mode, ExpiresAt: b.now().Add(sandbox.MinTTL * 5),
		})
		if err != nil {
			return nil, fmt.Errorf("make the canary's sandbox: %w", err)
		}
		boxes = append(boxes, box)
	}
	peer := boxes[1].Address
	if b.bridged { // where no gateway gives it one
		state, _, err := b.server.GetInstanceState(boxes[1].ID)
		if err != nil {
			return nil, err
		}
		for _, a := range state.Network[card].Addresses {
			if a.Family == "inet" && a.Scope == "global" {
				peer = a.Address
			}
		}
	}
	if a, err := netip.ParseAddr(peer); err == nil {
		probe.Peers = append(probe.Peers, a)
	}
	ways, err = b.probe(ctx, boxes[0].ID, probe)
	if err != nil {
		return nil, err
	}
	ways = append(ways, hears.heard()...)
	open, err := b.probe(ctx, boxes[2].ID, edge)
	if err != nil {
		return nil, err
	}
	host := edgeClosed
	if len(open) > 0 {
		host = strings.Join(open, "; ")
	}
	slices.Sort(ways)
	ways = slices.Compact(ways)
	found := canaryFine
	if len(ways) > 0 {
		found = strings.Join(ways, "; ")
	}
	return ways, edit(ctx, b.server, b.wires.name, func(put *api.InstancePut) error {
		put.Config[canaryKey], put.Config[edgeKey] = found, host
		return nil
	})
}

// probe runs the probe in a sandbox.
func (b *Backend) probe(ctx context.Context, id string, p canary.Probe) (ways []string, err error) {
	content, _, err := guestbin.Gateway()
	if err != nil {
		return nil, err
	}
	program := path.Join(guest.Dir, "probe")
	err = b.server.CreateInstanceFile(id, program, client.InstanceFileArgs{Type: "file", Mode: 0o755, Content: bytes.NewReader(content)})
	if err != nil {
		return nil, fmt.Errorf("put the canary's program into its sandbox: %w", err)
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	out, said := heard{most: 1 << 20}, heard{most: saidMost}
	code, err := b.exec(ctx, id, api.InstanceExecPost{Command: []string{program, "probe"}}, bytes.NewReader(text), &out, &said)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, &said)
	}
	if err != nil {
		return nil, fmt.Errorf("run the canary: %w", err)
	}
	for line := range strings.Lines(out.String()) {
		ways = append(ways, strings.TrimSpace(line))
	}
	return ways, nil
}

// ownAddresses are this machine's IPv4 addresses, with a port, and the hardware addresses of its cards.
func ownAddresses(port uint16) (hosts []netip.AddrPort, macs []string) {
	cards, _ := net.Interfaces()
	for _, card := range cards {
		addresses, _ := card.Addrs()
		before := len(hosts)
		for _, a := range addresses {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
				hosts = append(hosts, netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip.IP.To4())), port))
			}
		}
		if len(hosts) > before && len(card.HardwareAddr) == 6 {
			macs = append(macs, card.HardwareAddr.String())
		}
	}
	return hosts, macs
}

// ears hear what arrives at this host.
type ears struct {
	word    string
	tcp     net.Listener
	udp     net.PacketConn
	mu      sync.Mutex
	arrived []string

	listening sync.WaitGroup
}

func (e *ears) open() (port uint16, err error) {
	if e.tcp, err = net.Listen("tcp4", ":0"); err != nil {
		return 0, err
	}
	address := e.tcp.Addr().(*net.TCPAddr)
	if e.udp, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", address.Port)); err != nil {
		return 0, errors.Join(err, e.tcp.Close())
	}
	e.listening.Go(func() {
		for {
			conn, err := e.tcp.Accept()
			if err != nil {
				return
			}
			e.listening.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				b := make([]byte, 200)
				n, _ := conn.Read(b)
				e.hear(string(b[:n]), conn.LocalAddr().String())
			})
		}
	})
	e.listening.Go(func() {
		b := make([]byte, 200)
		for {
			n, _, err := e.udp.ReadFrom(b)
			if err != nil {
				return
			}
			e.hear(string(b[:n]), "the host")
		}
	})
	return uint16(address.Port), nil
}

func (e *ears) hear(text, at string) {
	if how, ok := strings.CutPrefix(text, e.word+" "); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.arrived = append(e.arrived, fmt.Sprintf("%s reaches %s", how, at))
	}
}

// heard returns what arrived.
func (e *ears) heard() []string {
	time.Sleep(200 * time.Millisecond) // for what is on its way
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.arrived)
}

func (e *ears) close() {
	_, _ = e.tcp.Close(), e.udp.Close()
	e.listening.Wait()
}

// leaky says what was found, and what to do.
func leaky(found string) string {
	return "something gets past the gateway (" + found + "); a human runs `pixels-mcp doctor`, which tries it anew"
}

// openEdge says which promise is missing while the host has no rules of its own for the bridge.
func (b *Backend) openEdge(w *wires) string {
	k, err := b.cache.instance(w.name)
	if err != nil || k == nil || k.Config[edgeKey] == edgeClosed {
		return ""
	}
	return "the host's own firewall rules for the bridge are not known to be in place: an allowed name that leads to one of the host's addresses reaches its services, " +
		"and what the host forwards may reach sandboxes; a human runs `sudo pixels-mcp setup`, and `pixels-mcp doctor` where Incus is on another machine"
}

// leaks returns what a canary found, when it found anything.
func (b *Backend) leaks(w *wires) string {
	k, err := b.cache.instance(w.name)
	if err != nil || k == nil || k.Config[canaryKey] == canaryFine {
		return ""
	}
	return k.Config[canaryKey]
}
