package gateway_test

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fakenet"
)

func TestASandboxLearnsItsAddress(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for i, name := range []string{"one", "two"} {
		b := &box{Space: fakenet.NewSpace(t), lab: l, name: name}
		l.addWire(i, b.Space)
		b.Up("eth0")
		p := policy(t, egress.Allowlist, "allowed.example.com")
		want := l.do(gateway.Request{Op: gateway.Take, Sandbox: name, Policy: &p}).Wire.Address
		ack := b.lease(t, nil)
		if ack == nil || !ack.YourIPAddr.Equal(want.AsSlice()) || len(ack.Router()) != 1 || len(ack.ClasslessStaticRoute()) != 2 {
			t.Fatalf("%s gets the lease %v, not %s", name, ack, want)
		}
		ones, _ := ack.SubnetMask().Size()
		if b.configure(want); ones != 32 || b.resolve("allowed.example.com") == (netip.Addr{}) {
			t.Errorf("%s gets a network of /%d", name, ones)
		}
	}
	// A clone that asks for its source's address is refused, and then gets its own.
	b := &box{Space: fakenet.NewSpace(t), lab: l, name: "three"}
	l.addWire(2, b.Space)
	b.Up("eth0")
	if ack := b.lease(t, nil); ack != nil {
		t.Errorf("what is on no wire that was taken gets the lease %v", ack)
	}
	p := policy(t, egress.Allowlist)
	want := l.do(gateway.Request{Op: gateway.Take, Sandbox: "three", Policy: &p}).Wire.Address
	if ack := b.lease(t, net.IPv4(10, 99, 0, 128)); ack != nil {
		t.Errorf("a clone gets its source's address: %v", ack)
	}
	if ack := b.lease(t, nil); ack == nil || !ack.YourIPAddr.Equal(want.AsSlice()) {
		t.Errorf("a clone gets the lease %v, not %s", ack, want)
	}
}

// lease asks for an address by DHCP, nil when there is none.
func (b *box) lease(t *testing.T, wanted net.IP) (ack *dhcpv4.DHCPv4) {
	t.Helper()
	b.Do(func() {
		client, err := nclient4.New("eth0", nclient4.WithTimeout(300*time.Millisecond), nclient4.WithRetry(2))
		if err != nil {
			t.Error(err)
			return
		}
		defer client.Close()
		lease, err := client.Request(t.Context(), func(d *dhcpv4.DHCPv4) {
			if wanted != nil {
				d.UpdateOption(dhcpv4.OptRequestedIPAddress(wanted))
			}
		})
		if err == nil {
			ack = lease.ACK
		}
	})
	return ack
}

func TestAnotherSandboxesAddressLeadsNowhere(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	one, two := l.box("one", egress.Allowlist), l.box("two", egress.Allowlist, "allowed.example.com")
	at := two.resolve("allowed.example.com")
	link, err := one.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := one.AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 99, 0, 128).To4(), Mask: net.CIDRMask(32, 32)}}); err != nil {
		t.Fatal(err)
	}
	one.configure(netip.MustParseAddr("10.99.0.129")) // and its hardware address means nothing on a wire of one's own
	if conn, err := one.Dial(short(t), "tcp4", at.String()+":443"); err == nil {
		t.Errorf("mac-ip-spoof: a connection to %s", conn.RemoteAddr())
	}
	if _, err := two.secure(two.dial("allowed.example.com", 443), "allowed.example.com"); err != nil {
		t.Errorf("arp-poison: the other one: %v", err)
	}
	for _, line := range l.inet.Seen() {
		if strings.HasPrefix(line, "tcp") {
			t.Errorf("the internet saw %q", line)
		}
	}
}

func TestTheHostReachesASandboxAndNobodyElseDoes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.None)
	b.listen(func() string { return "here" })
	l.inet.Address("up0", "10.99.0.77/24")
	for from, good := range map[string]bool{"10.99.0.1": true, "10.99.0.77": false} {
		var got string
		l.inet.Do(func() {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			within := short(t)
			if good {
				within = t.Context()
			}
			conn, err := dialer.DialContext(within, "tcp4", "10.99.0.128:9000")
			if err != nil {
				return
			}
			defer conn.Close()
			b := make([]byte, 4)
			n, _ := conn.Read(b)
			got = string(b[:n])
		})
		if (got == "here") != good {
			t.Errorf("from %s it answers %q", from, got)
		}
	}
}

func TestUnrestrictedReachesEverythingAndEndsWithItsMode(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Unrestricted)
	if reply := b.ask(1, "denied.example.com"); len(reply.Answer) != 1 || !strings.HasSuffix(reply.Answer[0].String(), fakenet.Site) {
		t.Fatalf("a name is answered with %v", reply)
	}
	conn := b.dialAddress(fakenet.Site + ":7")
	if _, err := conn.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if !ping(t, b, fakenet.Site) {
		t.Error("ping gets no answer")
	}
	host, speak := hostServer(t, l)
	toHost, byUDP := b.dialAddress(host), udpTo(t, b, host)
	for _, c := range []net.Conn{toHost, byUDP} {
		if _, err := c.Write([]byte("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if cut := b.set(egress.Allowlist).Cut; cut < 3 {
		t.Errorf("%d connections are said to be cut, of three", cut)
	}
	l.inet.Seen()
	// The host goes on speaking, as a service does: that opens no way for the sandbox.
	for range 3 {
		speak()
		_, _ = toHost.Write([]byte("leak"))
		_, _ = byUDP.Write([]byte("leak"))
		time.Sleep(50 * time.Millisecond)
	}
	if got := speak(); strings.Contains(got, "leak") {
		t.Errorf("a connection to the host outlives the mode: %q", got)
	}
	_, _ = conn.Write([]byte("b"))
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := conn.Read(make([]byte, 1)); n > 0 {
		t.Errorf("a connection outlives the mode: %v", err)
	}
	if ping(t, b, fakenet.Site) {
		t.Error("ping gets an answer after the mode")
	}
	l.quiet()
}

// hostServer answers TCP and UDP on the host's address of the network. What it returns has it say something to those who
// spoke to it, and tells what they said.
func hostServer(t *testing.T, l *lab) (address string, speak func() string) {
	t.Helper()
	var mu sync.Mutex
	var said strings.Builder
	var conns []net.Conn
	hear := func(b []byte) { mu.Lock(); defer mu.Unlock(); said.Write(b) }
	var listener net.Listener
	var packets net.PacketConn
	l.inet.Do(func() {
		var err error
		if listener, err = net.Listen("tcp4", "10.99.0.1:7777"); err == nil {
			packets, err = net.ListenPacket("udp4", "10.99.0.1:7777")
		}
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _, _ = listener.Close(), packets.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			go func() {
				defer c.Close()
				b := make([]byte, 100)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					hear(b[:n])
					_, _ = c.Write([]byte("x"))
				}
			}()
		}
	}()
	var from net.Addr
	go func() {
		b := make([]byte, 100)
		for {
			n, a, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			hear(b[:n])
			mu.Lock()
			from = a
			mu.Unlock()
			_, _ = packets.WriteTo([]byte("x"), a)
		}
	}()
	return "10.99.0.1:7777", func() string {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_, _ = c.Write([]byte("y"))
		}
		if from != nil {
			_, _ = packets.WriteTo([]byte("y"), from)
		}
		return said.String()
	}
}

func udpTo(t *testing.T, b *box, address string) net.Conn {
	t.Helper()
	c, err := b.Dial(t.Context(), "udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

// A name leads to no address that a rule denies.
func TestANameThatLeadsToADeniedAddress(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist)
	p := policy(t, egress.Allowlist, "allowed.example.com", "other.example.org")
	deny, err := egress.ParseRule(fakenet.Site + "/32:*")
	if err != nil {
		t.Fatal(err)
	}
	p.Rules = append(p.Rules, egress.Grant{Rule: deny, From: "human", Deny: true})
	l.do(gateway.Request{Op: gateway.Set, Sandbox: "one", Policy: &p})
	if _, err := b.secure(b.dial("allowed.example.com", 443), "allowed.example.com"); err == nil {
		t.Error("a name leads to an address that is denied")
	}
	if e := l.heard("one", gateway.Denied, "allowed.example.com", 443); !strings.Contains(e.Reason, fakenet.Site) {
		t.Errorf("the reason is %q", e.Reason)
	}
	if _, err := b.secure(b.dial("other.example.org", 443), "other.example.org"); err != nil {
		t.Error(err)
	}
}
