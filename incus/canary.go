package incus

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/internal/canary"
	"pixels/internal/fault"
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

// edgeKey, on the gateway's instance, is what a canary found that the host lacks: edgeClosed, or the gaps. edgeRunKey is the
// run of the host that it holds for, because what the host has does not outlast that.
const (
	edgeKey    = "user.pixels.canary_host"
	edgeRunKey = "user.pixels.canary_host_run"
	edgeClosed = "nothing is missing"
)

// canaryOwner has the canary's sandboxes. What a killed one left, its lease ends.
const canaryOwner = "pixels-canary"

// CanaryFound is what a canary found.
type CanaryFound struct {
	Ways    []string // by which something got past the gateway
	Gaps    []string // what the machine of the bridge lacks
	Untried []string // what could not be tried from here
}

// Canary makes two sandboxes that may reach nothing, tries in one of them the ways out that are known, as root, and finds
// those by which something arrived at this host, or was answered. From a third one, which may reach everything, it tries
// the edges: the host's own rules, connections from before its mode was narrowed, the table of neighbours. It notes at the
// gateway what it found: when that is any way out, sandboxes are refused the modes that promise to hold them, until another
// canary finds none. An error means that it could not be tried.
func Canary(ctx context.Context, c Config) (CanaryFound, error) {
	b, err := OpenBackend(c)
	if err != nil {
		return CanaryFound{}, err
	}
	defer b.Close()
	return b.canary(ctx)
}

func (b *Backend) canary(ctx context.Context) (found CanaryFound, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	probe := canary.Probe{Word: strings.ToLower(rand.Text()), Names: egress.Synthetic}
	network, _, err := b.server.with(ctx).GetNetwork(b.config.Network)
	if err != nil {
		return found, fmt.Errorf("look up the network %q: %w", b.config.Network, err)
	}
	own, err := netip.ParsePrefix(network.Config["ipv4.address"])
	if err != nil {
		return found, fmt.Errorf("the address of the network %q: %w", b.config.Network, err)
	}
	edges := &edges{Backend: b, host: HostRules{b.config.Network, own.Addr()}}
	hears := &ears{word: probe.Word}
	port := uint16(9) // on another machine nobody listens, but it may answer
	if b.config.Remote == "" {
		if port, err = hears.open(); err != nil {
			return found, fmt.Errorf("listen for the canary: %w", err)
		}
		defer hears.close()
		edges.ears = hears
		probe.Hosts, probe.MACs = ownAddresses(port)
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
			return found, fmt.Errorf("make the canary's sandbox: %w", err)
		}
		boxes = append(boxes, box)
	}
	peer := boxes[1].Address
	if b.bridged { // where no gateway gives it one
		state, _, err := b.server.with(ctx).GetInstanceState(boxes[1].ID)
		if err != nil {
			return found, err
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
	if found.Ways, err = b.probe(ctx, boxes[0].ID, probe); err != nil {
		return found, err
	}
	found.Ways = append(found.Ways, hears.heard()...)
	edges.probe, edges.box = probe, boxes[2]
	if !b.bridged {
		if err := edges.try(ctx, &found); err != nil {
			return found, err
		}
	}
	slices.Sort(found.Ways)
	found.Ways = slices.Compact(found.Ways)
	inst, err := b.gateway(ctx)
	if err != nil {
		return found, err
	}
	run, err := edgeRun(b.config, inst)
	if err != nil {
		return found, err
	}
	return found, edit(ctx, b.server, b.wires.name, func(put *api.InstancePut) error {
		put.Config[canaryKey], put.Config[edgeKey], put.Config[edgeRunKey] = orElse(found.Ways, canaryFine), orElse(found.Gaps, edgeClosed), strings.Join(run, " ")
		return nil
	})
}

// gateway returns the gateway's instance.
func (b *Backend) gateway(ctx context.Context) (*api.Instance, error) {
	k, err := b.cache.instance(ctx, b.wires.name)
	if err == nil && k == nil {
		err = fault.Errorf(fault.Unavailable, fault.Hint{Action: fault.SetUp}, "there is no gateway %s", b.wires.name)
	}
	if err != nil {
		return nil, err
	}
	return &k.Instance, nil
}

// orElse is a list as one text, and what stands for an empty one.
func orElse(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, "; ")
}

// probe runs a probe in a sandbox, and returns what it prints.
func (b *Backend) probe(ctx context.Context, id string, p canary.Probe) (lines []string, err error) {
	content, _, err := guestbin.Gateway()
	if err != nil {
		return nil, err
	}
	program := path.Join(guest.Dir, "probe")
	err = b.server.commit(ctx).CreateInstanceFile(id, program, client.InstanceFileArgs{Type: "file", Mode: 0o755, Content: bytes.NewReader(content)})
	if err != nil {
		return nil, fmt.Errorf("put the canary's program into its sandbox: %w", err)
	}
	out := heard{most: 1 << 20}
	err = b.runProbe(ctx, id, program, p, nil, &out)
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, err
}

// runProbe runs a probe in an instance that has its program. more is read after the probe, until its end.
func (b *Backend) runProbe(ctx context.Context, id, program string, p canary.Probe, more io.Reader, out io.Writer) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	in := io.Reader(bytes.NewReader(text))
	if more != nil {
		in = io.MultiReader(in, more)
	}
	said := heard{most: saidMost}
	code, err := b.exec(ctx, id, api.InstanceExecPost{Command: []string{program, "probe"}}, in, out, &said)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, &said)
	}
	if err != nil {
		return fmt.Errorf("run the canary: %w", err)
	}
	return nil
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

// leaky says what was found, and what to do.
func leaky(found string) string {
	return "something gets past the gateway (" + found + ")"
}

// openEdge says which promise is missing where the host lacks what the gateway can't do for it.
func (b *Backend) openEdge(ctx context.Context, w *wires) string {
	k, err := b.cache.instance(ctx, w.name)
	if err != nil || k == nil {
		return ""
	}
	return edgeGap(b.config, &k.Instance)
}

// edgeGap is what a canary noted at a gateway that the host lacks, or that none has looked; empty when nothing is missing.
func edgeGap(c Config, gateway *api.Instance) string {
	run, err := edgeRun(c, gateway)
	since := func(name string) bool { return strings.Contains(gateway.Config[edgeRunKey], name) }
	found := gateway.Config[edgeKey]
	switch {
	case err != nil:
		return "it can't be told whether the host is closed: " + err.Error()
	case found == edgeClosed && slices.ContainsFunc(run, since):
		return ""
	case found != "" && found != edgeClosed:
		return found
	}
	return "nobody has looked since the host was started whether it is closed: without rules of its own for the bridge an allowed name that leads to one of its " +
		"addresses reaches its services, and what it forwards may reach sandboxes"
}

// edgeRun names the present run of the machine of the bridge, in as many ways as can be seen from here: by the start of the
// gateway, which does not outlast the machine's run, and by Linux's name for it where that is this machine.
func edgeRun(c Config, gateway *api.Instance) (names []string, err error) {
	names = []string{gateway.LastUsedAt.UTC().Format(time.RFC3339Nano)}
	if c.Remote == "" {
		boot, err := bootID()
		if err != nil {
			return nil, err
		}
		names = append(names, boot)
	}
	return names, nil
}

// bootID is random for each run of this machine's kernel; see proc_sys_kernel(5).
var bootID = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
})

// leaks returns what a canary found, when it found anything.
func (b *Backend) leaks(ctx context.Context, w *wires) string {
	k, err := b.cache.instance(ctx, w.name)
	if err != nil || k == nil || k.Config[canaryKey] == canaryFine {
		return ""
	}
	return k.Config[canaryKey]
}
