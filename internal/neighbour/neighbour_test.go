package neighbour

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pixels/internal/fakenet"
)

func TestKept(t *testing.T) {
	space := fakenet.NewSpace(t)
	fakenet.Wire(space, "a", fakenet.NewSpace(t), "b")
	space.Address("a", "192.0.2.1/24")
	space.Up("a")
	link, err := space.LinkByName("a")
	if err != nil {
		t.Fatal(err)
	}
	index, hardware := link.Attrs().Index, net.HardwareAddr{2, 0, 0, 0, 0, 9}
	learned, told := net.IPv4(192, 0, 2, 7), net.IPv4(192, 0, 2, 8)
	kept := func(when string, address net.IP, want bool) {
		t.Helper()
		got, err := Kept(address)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	space.Do(func() {
		kept("unknown", learned, false)
		err := netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: unix.NUD_REACHABLE, IP: learned.To4(), HardwareAddr: hardware})
		if err != nil {
			t.Error(err)
		}
		kept("learned", learned, false)
		if known, err := KeepKnown(index, learned); !known || err != nil {
			t.Errorf("what is known is not: %v", err)
		}
		kept("learned, then kept", learned, true)
		if known, err := KeepKnown(index, told); known || err != nil {
			t.Errorf("what is unknown is known: %v", err)
		}
		if err := Keep(index, told, hardware); err != nil {
			t.Error(err)
		}
		kept("told", told, true)
	})
}
