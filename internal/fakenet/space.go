// Package fakenet makes network namespaces and, in one of them, a small internet of its own on 198.51.100.0/24 for tests:
// nothing of it leaves the machine. It needs root.
package fakenet

import (
	"context"
	"net"
	"net/netip"
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
