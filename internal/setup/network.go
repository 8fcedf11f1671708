package setup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"pixels/incus"
)

// network makes the managed bridge unless there is one.
func (j *job) network(ctx context.Context, p *incus.Provisioner) error {
	start := time.Now()
	have, err := p.Network(ctx)
	if err != nil {
		return err
	}
	if have != nil && have.Managed && have.Broken {
		if err := p.DeleteNetwork(ctx); err != nil {
			return fmt.Errorf("remove the network that an interrupted set-up left: %w", err)
		}
		have = nil
	}
	if have != nil {
		switch {
		case have.Type != "bridge":
			return fmt.Errorf("%q is there already and is a %s, no managed bridge: name a bridge of Incus in the configuration (defaults.network), or take that out for one of set-up's own, and run set-up again", have.Name, have.Type)
		case !have.Managed:
			j.had(start, "bridge %s (%s, not made by pixels and used as it is)", have.Name, have.Address)
		default:
			j.had(start, "bridge %s (%s)", have.Name, have.Address)
		}
		return nil
	}
	server, err := p.Server(ctx)
	if err != nil {
		return err
	}
	if server.Clustered {
		return fmt.Errorf("this Incus is a cluster, where a network is defined on each member: create the bridge %q yourself (incus network create --target ...), then run set-up again", p.Config().Network)
	}
	address, mtu := "auto", 0
	if j.local() {
		// Incus picks at random and asks only its own routing table; nameservers and other tables count as well.
		if address, err = chooseSubnet(takenPrefixes(ctx)); err != nil {
			return err
		}
		mtu = uplinkMTU()
	}
	if err := p.CreateNetwork(ctx, address, mtu); err != nil {
		return err
	}
	j.did(start, "bridge %s (%s, NAT)", p.Config().Network, address)
	return nil
}

// chooseSubnet returns the bridge address in the first /22 that overlaps nothing taken, or in the first /24 where there is
// none: half of a network's addresses are for sandboxes. 100.64.0.0/10 and 198.18.0.0/15
// are not among the candidates: providers use the one, the gateway's synthetic addresses the other.
func chooseSubnet(taken []netip.Prefix) (string, error) {
	for _, bits := range []int{22, 24} {
		for _, block := range []struct {
			a, b     byte
			from, to int
		}{{10, 66, 0, 255}, {10, 166, 0, 255}, {172, 29, 0, 255}, {192, 168, 100, 254}} {
			for c := block.from; c <= block.to; c += 1 << (24 - bits) {
				subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{block.a, block.b, byte(c), 0}), bits)
				if !overlaps(subnet, taken) {
					return netip.PrefixFrom(subnet.Addr().Next(), bits).String(), nil
				}
			}
		}
	}
	return "", errors.New("every private subnet that set-up knows overlaps a route of this machine: create the bridge yourself (incus network create pixels ipv4.address=... ipv4.nat=true ipv6.address=none), then run set-up again")
}

func overlaps(subnet netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if t.Overlaps(subnet) {
			return true
		}
	}
	return false
}

// takenPrefixes collects what a new subnet must not shadow: addresses and routes of this machine, and its nameservers,
// which are often reached through the default route alone.
func takenPrefixes(ctx context.Context) []netip.Prefix {
	var out []netip.Prefix
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			out = append(out, p.Masked())
		}
	}
	// All tables: a VPN often keeps its routes apart from the main one.
	if routes, err := exec.CommandContext(ctx, find("ip"), "-4", "route", "show", "table", "all").Output(); err == nil {
		out = append(out, parseRoutes(string(routes))...)
	}
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		if b, err := os.ReadFile(path); err == nil {
			out = append(out, parseNameservers(string(b))...)
		}
	}
	return out
}

// parseRoutes reads the destinations that `ip route show` prints, and leaves out the default route.
func parseRoutes(text string) []netip.Prefix {
	var out []netip.Prefix
	for line := range strings.Lines(text) {
		for _, word := range strings.Fields(line)[:min(2, len(strings.Fields(line)))] {
			// The destination comes first, or after a type such as "blackhole" or "local".
			if p, err := netip.ParsePrefix(word); err == nil {
				if p.Bits() > 1 { // 0.0.0.0/1 and 128.0.0.0/1 are a VPN's way to write "default"
					out = append(out, p.Masked())
				}
				break
			}
			if a, err := netip.ParseAddr(word); err == nil {
				out = append(out, netip.PrefixFrom(a, a.BitLen()))
				break
			}
		}
	}
	return out
}

// parseNameservers reads the servers of a resolv.conf.
func parseNameservers(text string) []netip.Prefix {
	var out []netip.Prefix
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && a.Is4() {
			out = append(out, netip.PrefixFrom(a, 32))
		}
	}
	return out
}

// uplinkMTU returns the MTU of the interface that the default route leaves by when it is below Ethernet's, else 0:
// packets of sandboxes that are larger than the uplink carries would vanish in networks that drop ICMP.
func uplinkMTU() int {
	b, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			if iface, err := net.InterfaceByName(f[0]); err == nil && iface.MTU < 1500 && iface.MTU >= 576 {
				return iface.MTU
			}
			return 0
		}
	}
	return 0
}
