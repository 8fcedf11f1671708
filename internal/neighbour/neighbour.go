// Package neighbour keeps entries of the kernel's neighbour table, of which there is one for all network namespaces: a
// sandbox that fills it keeps everybody from making new entries, and from keeping old ones.
package neighbour

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Keep notes the hardware address of a neighbour on an interface, so that it counts for no limit and is not collected. Unlike
// a permanent entry it gives way to what the neighbour says later: the kernel's NTF_EXT_LEARNED, see neigh_alloc and
// __neigh_update of net/core/neighbour.c.
func Keep(index int, address net.IP, hardware net.HardwareAddr) error {
	return netlink.NeighSet(entry(index, address, hardware))
}

func entry(index int, address net.IP, hardware net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: index, Family: unix.AF_INET, State: unix.NUD_REACHABLE, Flags: unix.NTF_EXT_LEARNED,
		IP: address.To4(), HardwareAddr: hardware,
	}
}

// KeepKnown keeps what the table has for a neighbour already. It tells whether it had anything.
func KeepKnown(index int, address net.IP) (bool, error) {
	all, err := netlink.NeighList(index, unix.AF_INET)
	if err != nil {
		return false, err
	}
	for _, n := range all {
		if !n.IP.Equal(address) || len(n.HardwareAddr) != 6 {
			continue
		}
		if kept(n) {
			return true, nil
		}
		return true, Keep(index, address, n.HardwareAddr)
	}
	return false, nil
}

// Kept tells whether the kernel has a neighbour's hardware address, on some interface, and keeps it whatever else comes into
// the table.
func Kept(address net.IP) (bool, error) {
	all, err := netlink.NeighList(0, unix.AF_INET)
	if err != nil {
		return false, err
	}
	for _, n := range all {
		if n.IP.Equal(address) && len(n.HardwareAddr) == 6 && kept(n) {
			return true, nil
		}
	}
	return false, nil
}

// kept holds for entries that count for no limit and are not collected.
func kept(n netlink.Neigh) bool {
	return n.Flags&unix.NTF_EXT_LEARNED != 0 || n.State&unix.NUD_PERMANENT != 0
}

// Ask has the kernel ask for a neighbour's hardware address.
func Ask(index int, address net.IP) error {
	return netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, Flags: unix.NTF_USE, IP: address.To4()})
}

// Limit is how many entries the table is to have room for (gc_thresh3 of arp(7), 1024 as delivered), because one sandbox can
// fill that. The number is the one that Incus advises for production.
const Limit = 131072

// limitPath is where the kernel tells its limit, on a machine itself and not in its containers.
const limitPath = "/proc/sys/net/ipv4/neigh/default/gc_thresh3"

// Short returns the limit where it is lower than Limit, and else 0, also where it is not to be seen.
func Short() int {
	text, err := os.ReadFile(limitPath)
	if err != nil {
		return 0
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || limit >= Limit {
		return 0
	}
	return limit
}

// Router is the gateway's address on every wire. It is link-local, so that it means nothing elsewhere.
var Router = netip.AddrFrom4([4]byte{169, 254, 1, 1})

// RouterHardware is the gateway's hardware address on every wire, which has two ends only: so nobody has to ask for it. It is
// one of those that are administered locally (IEEE 802), and the image with systemd has it in its network's file.
var RouterHardware = net.HardwareAddr{0x02, 'p', 'i', 'x', 0, 1}
