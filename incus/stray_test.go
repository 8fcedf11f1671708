package incus

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

// What an Incus on another machine says of its interfaces moves nothing on this one.
func TestARemoteIncusDeletesNothingHere(t *testing.T) {
	realBackend(t) // as where the other tests that make interfaces run
	pair := func(t *testing.T, name string) (there func() bool) {
		t.Helper()
		link := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: name + "p"}
		link.Name = name
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.LinkDel(link) })
		return func() bool { _, err := netlink.LinkByName(name); return err == nil }
	}
	for remote, want := range map[string]bool{"": false, "https://incus.example:8443": true} {
		t.Run("remote "+remote, func(t *testing.T) {
			w := newWires(nil, Config{Remote: remote, Network: fmt.Sprintf("pxtest%d", os.Getpid())})
			there := pair(t, w.hostEnd(3))
			said := fmt.Errorf(`make wires: Failed to create the veth interfaces %q and "vethx": %w`, w.hostEnd(3), errors.New("RTNETLINK answers: File exists"))
			if !w.clear(said) {
				t.Errorf("with the remote %q it is not understood", remote)
			}
			if there() != want {
				t.Errorf("with the remote %q an interface of this machine is there: %v", remote, there())
			}
			if w.blocked[3] != want {
				t.Errorf("with the remote %q the number is passed by: %v", remote, w.blocked[3])
			}
		})
	}
}
