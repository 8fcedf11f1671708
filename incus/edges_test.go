package incus

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pixels/egress"
	"pixels/internal/fakenet"
)

// hostHears is a server on an address of this machine, which tells whether somebody reached it.
func hostHears(t *testing.T, address string) (port string, heard func() bool) {
	t.Helper()
	listener, err := net.Listen("tcp4", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	reached := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			reached = true
			mu.Unlock()
			_, _ = io.WriteString(c, "the host")
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port, func() bool {
		mu.Lock()
		defer mu.Unlock()
		was := reached
		reached = false
		return was
	}
}

// The rules of the host's own close what the gateway can't know: that an address on the internet is the host's, and that
// what seems to come from the host was only forwarded and masqueraded by it.
func TestTheEdgesOfTheHost(t *testing.T) {
	t.Parallel()
	l := newRoutedLab(t)
	public := "203.0.113.1" // an address of this machine on the way to the internet
	rules := HostRules{Bridge: l.settings.Network, Address: netip.MustParseAddr(l.host())}
	t.Cleanup(func() {
		if _, err := rules.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	l.inet.Name("host.example.com", public)
	l.box(t, "some", egress.Allowlist, allowedName, "host.example.com:*")
	open := l.box(t, "open", egress.Unrestricted)
	publicPort, publicHeard := hostHears(t, public)
	bridgePort, bridgeHeard := hostHears(t, l.host())
	l.run(t, "open", "sh", "-c", "setsid attempt listen 9000 inside >/dev/null 2>&1 </dev/null &")
	masquerade := fmt.Sprintf("pixels_test_%d", os.Getpid())
	nftables := func(text string) {
		t.Helper()
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	// This machine masquerades for another network of its own, as it does for other bridges.
	nftables(fmt.Sprintf("table ip %[1]s {\n chain post {\n type nat hook postrouting priority srcnat - 1; policy accept;\n oifname \"%[2]s\" ip saddr 203.0.113.2 masquerade\n }\n}\n", masquerade, l.settings.Network))
	t.Cleanup(func() { nftables("delete table ip " + masquerade + "\n") })
	forwarded := func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		conn, err := l.inet.Dial(ctx, "tcp4", net.JoinHostPort(open.Address, "9000"))
		if err != nil {
			return ""
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		b, _ := io.ReadAll(conn)
		return string(b)
	}
	attack := func() (got []string) {
		l.try(t, "some", "tcp", "host.example.com:"+publicPort, "-say", `\x00hello\n`)
		if publicHeard() {
			got = append(got, "an allowed name reaches the host's public address")
		}
		l.try(t, "open", "tcp", public+":"+publicPort, "-say", `\x00hello\n`)
		if publicHeard() {
			got = append(got, "an unrestricted sandbox reaches the host's public address")
		}
		l.try(t, "open", "tcp", l.host()+":"+bridgePort, "-say", `\x00hello\n`)
		if bridgeHeard() {
			got = append(got, "an unrestricted sandbox reaches the host's address on the bridge")
		}
		if said := forwarded(); said != "" {
			got = append(got, "what the host masquerades reaches a sandbox")
		}
		return got
	}
	if got := attack(); len(got) != 4 {
		t.Errorf("without the rules this gets through: %q", got) // or the attacks prove nothing
	}
	if there, err := rules.Ensure(t.Context()); err != nil || there {
		t.Fatalf("the rules were there: %v, %v", there, err)
	}
	if there, err := rules.Ensure(t.Context()); err != nil || !there {
		t.Fatalf("the rules are not there: %v", err)
	}
	if got := attack(); len(got) != 0 {
		t.Errorf("with the rules this gets through: %q", got)
	}
	if said := l.try(t, "some", "tcp", allowedName+":80", "-host", allowedName); !strings.Contains(said, "you asked") {
		t.Errorf("with the rules an allowed name is not reached: %s", said)
	}
	if said := l.try(t, "open", "tcp", fakenet.Site+":80", "-host", allowedName); !strings.Contains(said, "you asked") {
		t.Errorf("with the rules the internet is not reached: %s", said)
	}
	conn, err := net.DialTimeout("tcp4", net.JoinHostPort(open.Address, "9000"), 5*time.Second)
	if err != nil {
		t.Fatalf("with the rules the host does not reach a sandbox: %v", err)
	}
	_ = conn.Close()
	if there, err := rules.Remove(t.Context()); err != nil || !there {
		t.Errorf("the rules are not removed: %v, %v", there, err)
	}
	if there, _ := rules.Present(t.Context()); there {
		t.Error("the rules are there still")
	}
}

// One sandbox can fill the table of neighbours, which the machine has one of. The others have their way out all the same,
// and new ones get theirs. It runs alone, for every network namespace of the machine feels it.
func TestAFullTableOfNeighbours(t *testing.T) {
	l := newLab(t)
	l.box(t, "good", egress.Allowlist, allowedName+":*")
	l.box(t, "greedy", egress.Allowlist)
	systemd := func(name string) {
		t.Helper()
		l.config.Image += "-systemd"
		defer func() { l.config.Image = strings.TrimSuffix(l.config.Image, "-systemd") }()
		l.box(t, name, egress.Allowlist, allowedName+":*")
	}
	systemd("systemd")
	works := func(box, when string) {
		t.Helper()
		if said := l.try(t, box, "tcp", allowedName+":80", "-host", allowedName); !strings.Contains(said, "you asked") {
			t.Errorf("%s, %s: %s", box, when, said)
		}
	}
	works("good", "before")
	works("systemd", "before")
	// The internet of this lab is on the network itself. The real one is behind routers, whose tables are their own.
	up, err := l.inet.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.inet.NeighList(up.Attrs().Index, unix.AF_INET)
	if err != nil || len(near) == 0 {
		t.Fatalf("the neighbours of the internet: %v, %v", near, err)
	}
	for _, n := range near {
		n.State = unix.NUD_PERMANENT
		if err := l.inet.NeighSet(&n); err != nil {
			t.Fatalf("keep %s: %v", n.IP, err)
		}
	}
	// The usual size would be set-up's; the attack on it takes the same way, and longer.
	const limit = "/proc/sys/net/ipv4/neigh/default/gc_thresh3"
	was, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limit, []byte("1024"), 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(limit, was, 0); err != nil {
			t.Error(err)
		}
	}()
	var attack sync.WaitGroup
	said := ""
	attack.Go(func() { said = l.try(t, "greedy", "exhaust", "neighbours", "200000") })
	soon(t, "the table is full", func() bool {
		space := fakenet.NewSpace(t)
		space.Address("lo", "192.0.2.1/24")
		space.Up("lo")
		lo, err := space.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		return space.NeighSet(&netlink.Neigh{LinkIndex: lo.Attrs().Index, Family: unix.AF_INET, State: unix.NUD_REACHABLE, IP: net.IPv4(192, 0, 2, 77).To4(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}) != nil
	})
	for range 3 {
		works("good", "while the table is full")
		works("systemd", "while the table is full")
	}
	l.box(t, "new", egress.Allowlist, allowedName+":*")
	works("new", "made while the table is full")
	systemd("new-systemd")
	works("new-systemd", "made while the table is full")
	attack.Wait()
	t.Log(said)
}
