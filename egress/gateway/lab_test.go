package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fakenet"
)

const (
	asGateway     = "PIXELS_TEST_GATEWAY" // in its environment the test program is a gateway with that configuration
	shortPatience = "PIXELS_TEST_PATIENCE"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(asGateway); text != "" {
		var c gateway.Config
		err := json.Unmarshal([]byte(text), &c)
		if os.Getenv(shortPatience) != "" {
			gateway.ShortPatience()
		}
		if err == nil {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer stop()
			handOver, _ := signal.NotifyContext(context.Background(), syscall.SIGUSR1)
			err = gateway.Run(ctx, handOver, c, zerolog.New(os.Stderr))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m) // no goroutine outlives the tests
}

// lab is a gateway between some sandboxes' namespaces and a fake internet.
type lab struct {
	t      testing.TB
	inet   *fakenet.Internet
	space  *fakenet.Space // the gateway's
	config gateway.Config
	log    *bytes.Buffer

	variable string // that is set for the gateway
	cmd      *exec.Cmd

	*gateway.Client
	mu     sync.Mutex
	events []gateway.Event
}

// box is a sandbox's namespace on a wire.
type box struct {
	*fakenet.Space
	lab  *lab
	name string
	wire int
}

func newLab(t testing.TB) *lab {
	t.Helper()
	return newLabWith(t, "")
}

// newLabWith is newLab whose gateway has a variable set.
func newLabWith(t testing.TB, variable string) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{t: t, variable: variable, inet: fakenet.NewInternet(t), space: fakenet.NewSpace(t), config: gateway.Config{
		Uplink: "eth0", Address: netip.MustParsePrefix("10.99.0.2/23"), Host: netip.MustParseAddr("10.99.0.1"),
		Resolver: netip.MustParseAddrPort(fakenet.DNS + ":53"), First: netip.MustParseAddr("10.99.0.128"), Wires: 250,
		Dir: filepath.Join(dir, "policy"), Socket: filepath.Join(dir, "control"),
	}}
	fakenet.Wire(l.space, "eth0", l.inet.Space, "up0")
	l.inet.Address("up0", "10.99.0.1/23")
	l.inet.Up("up0")
	l.inet.Name("allowed.example.com", fakenet.Site)
	l.inet.Name("denied.example.com", fakenet.Site) // the same server: a shared front
	l.inet.Name("other.example.org", fakenet.OtherSite)
	l.start()
	return l
}

func (l *lab) start() {
	l.t.Helper()
	text, err := json.Marshal(l.config)
	if err != nil {
		l.t.Fatal(err)
	}
	l.log = &bytes.Buffer{}
	l.cmd = exec.Command(os.Args[0])
	l.cmd.Env = append(os.Environ(), asGateway+"="+string(text))
	if l.variable != "" {
		l.cmd.Env = append(l.cmd.Env, l.variable+"=1")
	}
	l.cmd.Stderr = l.log
	if err := l.space.Start(l.cmd); err != nil {
		l.t.Fatal(err)
	}
	cmd := l.cmd
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if l.t.Failed() {
			l.t.Logf("the gateway says: %s", l.log)
		}
	})
	eventually(l.t, "the gateway listens", func() bool {
		conn, err := net.Dial("unix", l.config.Socket)
		if err == nil {
			l.Client = gateway.NewClient(conn, l.hear)
		}
		return err == nil
	})
	l.t.Cleanup(func() { _ = l.Close() })
	l.do(gateway.Request{Op: gateway.Watch})
}

func (l *lab) hear(e gateway.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// heard waits for an event.
func (l *lab) heard(sandbox string, verdict gateway.Verdict, domain string, port uint16) gateway.Event {
	l.t.Helper()
	var found gateway.Event
	eventually(l.t, fmt.Sprintf("%s: %s:%d is %s", sandbox, domain, port, verdict), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.IndexFunc(l.events, func(e gateway.Event) bool {
			return e.Sandbox == sandbox && e.Verdict == verdict && (e.Domain == domain || e.Address == domain) && e.Port == port
		})
		if i >= 0 {
			found = l.events[i]
			l.events = slices.Delete(l.events, i, i+1)
		}
		return i >= 0
	})
	return found
}

func (l *lab) do(r gateway.Request) gateway.Reply {
	l.t.Helper()
	reply, err := l.Do(l.t.Context(), r)
	if err != nil {
		l.t.Fatalf("%s %s: %v", r.Op, r.Sandbox, err)
	}
	return reply
}

func (l *lab) addWire(number int, other *fakenet.Space) {
	l.t.Helper()
	fakenet.Wire(l.space, fmt.Sprintf("w%d", number), other, "eth0")
	eventually(l.t, "the gateway sees the wire", func() bool {
		return slices.ContainsFunc(l.do(gateway.Request{Op: gateway.Wires}).Wires, func(w gateway.Wire) bool { return w.Number == number })
	})
}

// box makes a sandbox with a policy on a wire of its own.
func (l *lab) box(name string, mode egress.Mode, rules ...string) *box {
	l.t.Helper()
	b := &box{Space: fakenet.NewSpace(l.t), lab: l, name: name}
	number := len(l.do(gateway.Request{Op: gateway.Wires}).Wires)
	l.addWire(number, b.Space)
	policy := policy(l.t, mode, rules...)
	taken := l.do(gateway.Request{Op: gateway.Take, Sandbox: name, Policy: &policy})
	b.wire = taken.Wire.Number
	if b.wire != number {
		l.t.Fatalf("%s got wire %d, not the only free one %d", name, b.wire, number)
	}
	b.configure(taken.Wire.Address)
	return b
}

func (b *box) configure(a netip.Addr) {
	b.t().Helper()
	b.Address("eth0", a.String()+"/32")
	b.Up("eth0")
	b.Route("eth0", netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("169.254.1.1"))
}

// listen answers whoever connects to port 9000 with what say returns.
func (b *box) listen(say func() string) {
	b.Do(func() {
		listener, err := net.Listen("tcp4", ":9000")
		if err != nil {
			b.t().Error(err)
			return
		}
		b.t().Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, say())
				_ = c.Close()
			}
		}()
	})
}

func (b *box) t() testing.TB { return b.lab.t }

func policy(t testing.TB, mode egress.Mode, rules ...string) egress.Policy {
	t.Helper()
	p := egress.Policy{Mode: mode}
	for _, text := range rules {
		r, err := egress.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		p.Rules = append(p.Rules, egress.Grant{Rule: r, From: "test"})
	}
	return p
}

func (b *box) set(mode egress.Mode, rules ...string) gateway.Reply {
	b.t().Helper()
	p := policy(b.t(), mode, rules...)
	return b.lab.do(gateway.Request{Op: gateway.Set, Sandbox: b.name, Policy: &p})
}

// ask asks the gateway's DNS.
func (b *box) ask(kind uint16, name string) *dns.Msg {
	b.t().Helper()
	conn, err := b.Dial(b.t().Context(), "udp4", "169.254.1.1:53")
	if err != nil {
		b.t().Fatal(err)
	}
	defer conn.Close()
	reply, _, err := new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), &dns.Conn{Conn: conn})
	if err != nil {
		b.t().Fatalf("ask for %s: %v", name, err)
	}
	return reply
}

func (b *box) resolve(name string) netip.Addr {
	b.t().Helper()
	reply := b.ask(dns.TypeA, name)
	if len(reply.Answer) != 1 {
		b.t().Fatalf("%s has the answer %v", name, reply)
	}
	a, _ := netip.AddrFromSlice(reply.Answer[0].(*dns.A).A.To4())
	return a
}

// dial connects to a name as programs do; the error is of connecting, which here always works.
func (b *box) dial(name string, port int) *net.TCPConn {
	b.t().Helper()
	return b.dialAddress(fmt.Sprintf("%s:%d", b.resolve(name), port))
}

func (b *box) dialAddress(address string) *net.TCPConn {
	b.t().Helper()
	ctx, cancel := context.WithTimeout(b.t().Context(), 5*time.Second)
	defer cancel()
	conn, err := b.Dial(ctx, "tcp4", address)
	if err != nil {
		b.t().Fatalf("dial %s: %v", address, err)
	}
	b.t().Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// get speaks HTTP on a connection: a request for a host, and the answer's status and body.
func get(conn io.ReadWriter, host, path string) (string, error) {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return "", err
	}
	b, err := io.ReadAll(conn)
	return string(b), err
}

// secure does TLS on a connection with a server name, and asks for /.
func (b *box) secure(conn net.Conn, name string) (string, error) {
	client := tls.Client(conn, &tls.Config{ServerName: name, RootCAs: b.lab.inet.CA})
	if err := client.HandshakeContext(b.t().Context()); err != nil {
		return "", err
	}
	return get(client, name, "/")
}

// quiet fails the test when anything but DNS questions for names arrived at the internet.
func (l *lab) quiet(names ...string) {
	l.t.Helper()
	for _, line := range l.inet.Seen() {
		if name, ok := strings.CutPrefix(line, "dns "); !ok || !slices.Contains(names, name) {
			l.t.Errorf("the internet saw %q", line)
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func linkDel(s *fakenet.Space, name string) error {
	link, err := s.LinkByName(name)
	if err != nil {
		return err
	}
	return s.LinkDel(netlink.Link(link))
}
