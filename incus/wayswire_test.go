package incus

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fakenet"
	"pixels/sandbox"
)

// generous is how long what must happen at once may take on a busy machine.
const generous = 5 * time.Second

// bridgeMAC is the hardware address of the host's end of the network.
func (l *lab) bridgeMAC(t *testing.T) string {
	t.Helper()
	link, err := netlink.LinkByName(l.config.Network)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().HardwareAddr.String()
}

// hears listens for datagrams on an address of the host, and returns what came within a second of what do does.
func hears(t *testing.T, address string, do func()) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	do()
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	b := make([]byte, 1500)
	n, _, _ := conn.ReadFrom(b)
	return string(b[:n])
}

// says connects from the internet, which is the host to this gateway, to a sandbox's port and returns what it says.
func (l *lab) says(t *testing.T, address string) (text string) {
	l.inet.Do(func() {
		conn, err := net.DialTimeout("tcp4", address, time.Second)
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		b, _ := io.ReadAll(conn)
		text = string(b)
	})
	return text
}

// behind starts an attempt in a sandbox that goes on as long as the sandbox does.
func (l *lab) behind(t *testing.T, box string, args ...string) {
	t.Helper()
	_, err := l.StartRun(t.Context(), l.boxes[box], sandbox.Command{Argv: append([]string{"attempt"}, args...), User: "root"}, 0)
	if err != nil {
		t.Fatal(err)
	}
}

// addressOf is the address that a sandbox has.
func (l *lab) addressOf(t *testing.T, box string) string {
	t.Helper()
	state, _, err := l.server.with(context.Background()).GetInstanceState(l.boxes[box])
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range state.Network[card].Addresses {
		if a.Family == "inet" && a.Scope == "global" {
			return a.Address
		}
	}
	return ""
}

var ownWays = []way{
	{"host-mac", onAWire, func(t *testing.T, l *lab) string {
		l.packets.Seen()
		l.try(t, l.subject, "frame", l.bridgeMAC(t), "own", l.upstream(), "443", "out")
		return l.arrived()
	}},
	{"host-mac-local", onAWire, func(t *testing.T, l *lab) string {
		return hears(t, l.network.Addr().String()+":4443", func() {
			l.try(t, l.subject, "frame", l.bridgeMAC(t), "own", l.network.Addr().String(), "4443", "to the host")
		})
	}},
	{"host-mac-dns", onAWire, func(t *testing.T, l *lab) string {
		other, _, err := l.server.with(context.Background()).GetNetwork("pixels")
		if err != nil {
			t.Fatal(err)
		}
		ip, _, err := net.ParseCIDR(other.Config["ipv4.address"])
		if err != nil {
			t.Fatal(err)
		}
		// A question for a name that only that network's dnsmasq knows: its gateway's.
		question := `\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00`
		for _, label := range []string{"pixels-gateway-pixels", "incus"} {
			question += fmt.Sprintf(`\x%02x%s`, len(label), label)
		}
		said := l.try(t, l.subject, "frame", l.bridgeMAC(t), "own", ip.String(), "53", question+`\x00\x00\x01\x00\x01`)
		return got(said, `answer: "\x124`)
	}},
	{"arp-poison", onAWire, func(t *testing.T, l *lab) string {
		victim := "two"
		if l.subject != "one" {
			victim = "victim"
		}
		l.behind(t, victim, "listen", "9001", "it is me")
		target := l.addressOf(t, victim) + ":9001"
		for range 50 {
			if l.says(t, target) == "it is me" {
				break
			}
		}
		taken := l.addressOf(t, victim) + "/32"
		l.run(t, l.subject, "ip", "addr", "add", taken, "dev", "eth0")
		defer l.run(t, l.subject, "ip", "addr", "del", taken, "dev", "eth0")
		l.behind(t, l.subject, "listen", "9001", "it is not")
		l.behind(t, l.subject, "claim", l.addressOf(t, victim))
		time.Sleep(1500 * time.Millisecond) // a neighbour that was just learnt is not forgotten sooner
		for range 3 {
			if text := l.says(t, target); text != "it is me" {
				return fmt.Sprintf("the other one can't be reached, but says %q", text)
			}
		}
		return ""
	}},
	{"ipv6", onAWire, func(t *testing.T, l *lab) string {
		l.run(t, l.subject, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip -6 addr add 2001:db8::2/64 dev eth0 nodad; ip -6 route add default dev eth0; true")
		l.packets.Seen()
		for _, to := range []string{"ff02::1", "2001:db8::1", "fe80::1"} {
			l.try(t, l.subject, "frame6", to, "out by IPv6")
		}
		return l.arrived()
	}},
	{"peer", onAWire, func(t *testing.T, l *lab) string {
		victim := "two"
		if l.subject != "one" {
			victim = "victim"
		}
		l.behind(t, victim, "listen", "9000", "reached")
		target := l.addressOf(t, victim)
		soon(t, "the other one listens", func() bool { return l.says(t, target+":9000") == "reached" })
		through := got(l.try(t, l.subject, "tcp", target+":9000"), "reached")
		if l.subject == "one" {
			through += got(l.try(t, "open", "tcp", target+":9000"), "reached")
		}
		l.packets.Seen()
		l.try(t, l.subject, "frame", "ff:ff:ff:ff:ff:ff", "own", l.upstream(), "9000", "to all")
		return through + l.arrived()
	}},
	{"mac-ip-spoof", gateway.ProtectSources, func(t *testing.T, l *lab) string {
		mac := strings.TrimSpace(l.run(t, "one", "sh", "-c", "ip neigh show 169.254.1.1 dev eth0 | sed 's/.*lladdr \\([^ ]*\\).*/\\1/'"))
		l.packets.Seen()
		l.try(t, "one", "frame", mac, l.addressOf(t, "open"), site, "443", "as the other one")
		return l.arrived()
	}},
	{"deny-cuts", gateway.ProtectChanges, func(t *testing.T, l *lab) string {
		l.set(t, "one", egress.Allowlist, allowedName, allowedName+":7")
		if l.weakened != "" {
			l.weaken(t, l.weakened) // what it starts with is in force even so
		}
		ended := make(chan string, 1)
		go func() { ended <- l.try(t, "one", "hold", allowedName+":7") }()
		for range 200 {
			if strings.Contains(l.seen(), "tick") {
				break
			}
		}
		if inst, _, err := l.server.with(t.Context()).GetInstance(l.boxes["one"]); err != nil {
			t.Error(err)
		} else if used, err := l.inUse(t.Context(), inst); !used {
			t.Errorf("a sandbox with an open connection is unused, %v", err)
		}
		cut := l.set(t, "one", egress.Allowlist, allowedName)
		select {
		case said := <-ended:
			if !strings.Contains(said, "reset") || cut != 1 {
				t.Errorf("%d connections cut, and the client sees %s", cut, said)
			}
			l.forget()
			return l.seen()
		case <-time.After(generous):
			l.run(t, "one", "pkill", "-9", "attempt")
			<-ended
			return "the connection goes on"
		}
	}},
	{"allow-live", gateway.ProtectChanges, func(t *testing.T, l *lab) string {
		l.set(t, "one", egress.Allowlist, allowedName)
		if said := l.try(t, "one", "tcp", deniedName+":443", "-sni", deniedName, "-host", deniedName); strings.Contains(said, "you asked") {
			return "it is allowed before it was"
		}
		start := time.Now()
		l.set(t, "one", egress.Allowlist, allowedName, deniedName)
		defer l.set(t, "one", egress.Allowlist, allowedName)
		said := l.try(t, "one", "tcp", deniedName+":443", "-sni", deniedName, "-host", deniedName)
		if took := time.Since(start); !strings.Contains(said, "you asked "+deniedName) || took > generous {
			return fmt.Sprintf("after %s: %s", took, said)
		}
		return ""
	}},
	{"name-forms", gateway.ProtectNames, func(t *testing.T, l *lab) string {
		for _, name := range []string{"evilexample.com", "example.com", "a.example.com", "bücher.example.com", "xn--bcher-kva.example.com", "example.com.evil.org"} {
			l.inet.Name(name, fakenet.Site)
		}
		l.set(t, "one", egress.Allowlist, "*.example.com")
		defer l.set(t, "one", egress.Allowlist, allowedName)
		for _, name := range []string{"A.Example.COM", "a.example.com.", "xn--bcher-kva.example.com", "XN--BCHER-KVA.example.com"} {
			if said := l.try(t, "one", "tcp", name+":80", "-host", name); !strings.Contains(said, "you asked") {
				t.Errorf("%s: %s", name, said)
			}
		}
		l.forget()
		for _, name := range []string{"evilexample.com", "example.com", "example.com.evil.org", "EXAMPLE.com."} {
			l.try(t, "one", "tcp", name+":80", "-host", name)
		}
		return l.seen()
	}},
}

// A sandbox on a bridge, as none is outside of this test.
func (l *lab) onABridge(t *testing.T, do func()) {
	t.Helper()
	// They are on no wire, which mending would take for a loss and plug them anew, just when they are to be seen.
	_ = l.mending.Acquire(context.Background(), 1)
	defer l.mending.Release(1)
	l.bridged = true
	defer func() { l.bridged, l.subject = false, "one" }()
	l.box(t, "bridged", egress.Unrestricted)
	l.box(t, "victim", egress.Unrestricted)
	l.subject = "bridged"
	do()
}

// destroy ends a sandbox and waits until it is gone.
func (l *lab) destroy(t *testing.T, box string) {
	t.Helper()
	if err := l.Destroy(context.Background(), l.boxes[box]); err != nil {
		t.Fatal(err)
	}
	l.background.Wait()
}
