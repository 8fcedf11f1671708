// Package fakenet makes network namespaces and, in one of them, a small internet of its own on 198.51.100.0/24 for tests:
// nothing of it leaves the machine. It needs root.
package fakenet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Space is a network namespace, which ends with its test.
type Space struct {
	t      testing.TB
	handle netns.NsHandle
	*netlink.Handle
}

// NewSpace makes a namespace in which lo is up.
func NewSpace(t testing.TB) *Space {
	t.Helper()
	s := &Space{t: t}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var err error
		s.handle, err = netns.New()
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatalf("make a network namespace (this takes root): %v", err)
	}
	t.Cleanup(func() { _ = s.handle.Close() })
	var err error
	if s.Handle, err = netlink.NewHandleAt(s.handle); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Handle.Close)
	s.Up("lo")
	return s
}

// Path is a file that stands for the namespace while its test runs, as nsenter(1) takes it.
func (s *Space) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(s.handle)) }

// Do runs f in the namespace, and waits for it. What it opens stays there.
func (s *Space) Do(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := netns.Set(s.handle); err != nil {
			s.t.Errorf("enter a namespace: %v", err)
			return
		}
		f()
	}()
	<-done
}

// Start starts a command in the namespace.
func (s *Space) Start(cmd *exec.Cmd) (err error) {
	s.Do(func() { err = cmd.Start() })
	return err
}

// Dial connects from the namespace to an address.
func (s *Space) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	s.Do(func() { conn, err = new(net.Dialer).DialContext(ctx, network, address) })
	return conn, err
}

// Up sets an interface up.
func (s *Space) Up(name string) {
	s.t.Helper()
	link, err := s.LinkByName(name)
	if err == nil {
		err = s.LinkSetUp(link)
	}
	if err != nil {
		s.t.Fatalf("set %s up: %v", name, err)
	}
}

// Address gives an interface an address.
func (s *Space) Address(name, prefix string) {
	s.t.Helper()
	link, err := s.LinkByName(name)
	if err != nil {
		s.t.Fatal(err)
	}
	address, err := netlink.ParseAddr(prefix)
	if err == nil {
		err = s.AddrReplace(link, address)
	}
	if err != nil {
		s.t.Fatalf("give %s the address %s: %v", name, prefix, err)
	}
}

// Route sends what goes to a network over an interface, by a router that needs not be in its network.
func (s *Space) Route(name string, to netip.Prefix, by netip.Addr) {
	s.t.Helper()
	link, err := s.LinkByName(name)
	if err == nil {
		err = s.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: by.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
			Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)}})
	}
	if err != nil {
		s.t.Fatalf("route %s over %s: %v", to, name, err)
	}
}

// Wire joins two namespaces by a pair of interfaces; both are down.
func Wire(a *Space, nameA string, b *Space, nameB string) {
	a.t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nameB, PeerNamespace: netlink.NsFd(int(b.handle))}
	pair.Name = nameA
	if err := a.LinkAdd(pair); err != nil {
		a.t.Fatalf("wire %s to %s: %v", nameA, nameB, err)
	}
}

// Plug joins the namespace to a bridge of this process's namespace, by an interface that is up.
func (s *Space) Plug(name, bridge, end string) {
	s.t.Helper()
	to, err := netlink.LinkByName(bridge)
	if err != nil {
		s.t.Fatalf("find the bridge %s: %v", bridge, err)
	}
	s.join(name, end, to.Attrs().Index)
}

// Down sets an interface down.
func (s *Space) Down(name string) {
	s.t.Helper()
	link, err := s.LinkByName(name)
	if err == nil {
		err = s.LinkSetDown(link)
	}
	if err != nil {
		s.t.Fatalf("set %s down: %v", name, err)
	}
}

// Setting writes a network setting of the namespace, by its path below /proc/sys.
func (s *Space) Setting(key, value string) {
	s.t.Helper()
	s.Do(func() {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
			s.t.Error(err)
		}
	})
}

// Link joins the namespace to that of this process, which sends to the fake internet through it.
func (s *Space) Link(name, end string, own, others netip.Prefix) {
	s.t.Helper()
	link := s.join(name, end, 0)
	s.Address(name, own.String())
	s.Route(name, netip.MustParsePrefix("0.0.0.0/0"), others.Addr())
	address, err := netlink.ParseAddr(others.String())
	if err == nil {
		err = netlink.AddrAdd(link, address)
	}
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: own.Addr().AsSlice(),
			Dst: &net.IPNet{IP: netip.MustParseAddr("198.51.100.0").AsSlice(), Mask: net.CIDRMask(24, 32)}})
	}
	if err != nil {
		s.t.Fatalf("link a namespace: %v", err)
	}
}

// Limit bounds what an interface sends, in bits a second.
func (s *Space) Limit(name string, rate uint64) {
	s.t.Helper()
	link, err := s.LinkByName(name)
	if err == nil {
		err = s.QdiscReplace(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       rate / 8, Buffer: netlink.Xmittime(rate/8, 1<<20), Limit: 4 << 20,
		})
	}
	if err != nil {
		s.t.Fatalf("limit %s: %v", name, err)
	}
}

// join joins the namespace to that of this process by interfaces that are up; the other end is in the bridge, if any.
func (s *Space) join(name, end string, bridge int) netlink.Link {
	s.t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: name, PeerNamespace: netlink.NsFd(int(s.handle))}
	pair.Name, pair.MasterIndex = end, bridge
	if err := netlink.LinkAdd(pair); err != nil {
		s.t.Fatalf("join a namespace to this one: %v", err)
	}
	s.t.Cleanup(func() { _ = netlink.LinkDel(pair) })
	if err := netlink.LinkSetUp(pair); err != nil {
		s.t.Fatal(err)
	}
	s.Up(name)
	return pair
}
