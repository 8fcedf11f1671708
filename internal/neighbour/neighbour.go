// Package neighbour keeps entries of the kernel's neighbour table, of which there is one for all network namespaces: a
// sandbox that fills it keeps everybody from making new entries, and from keeping old ones.
package neighbour

import (
	"net"

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
		if n.Flags&unix.NTF_EXT_LEARNED != 0 || n.State&unix.NUD_PERMANENT != 0 {
			return true, nil
		}
		return true, Keep(index, address, n.HardwareAddr)
	}
	return false, nil
}

// Ask has the kernel ask for a neighbour's hardware address.
func Ask(index int, address net.IP) error {
	return netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, Flags: unix.NTF_USE, IP: address.To4()})
}

// RouterOption is an option of DHCP, of those for private use (RFC 3942), by which a gateway tells its hardware address.
const RouterOption = 224
