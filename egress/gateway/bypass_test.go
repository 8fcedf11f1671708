package gateway_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"pixels/egress"
	"pixels/egress/gateway"
)

// denied fails the test unless nothing came back over a connection but a denial.
func denied(t *testing.T, what, got string, err error) {
	t.Helper()
	if err == nil && !strings.HasPrefix(got, "HTTP/1.1 403 ") && got != "" {
		t.Errorf("%s: got %q", what, got)
	}
}

func TestNoWayAroundNames(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com")
	got, err := b.secure(b.dialAddress("198.51.100.10:443"), "allowed.example.com")
	denied(t, "direct-ip-sni", got, err)
	got, err = get(b.dialAddress("198.51.100.10:80"), "allowed.example.com", "/")
	denied(t, "direct-ip", got, err)
	if e := l.heard("one", gateway.Denied, "198.51.100.10", 443); e.Reason == "" {
		t.Error("direct-ip is not on record with a reason")
	}
	got, err = b.secure(b.dial("denied.example.com", 443), "denied.example.com")
	denied(t, "shared-cdn", got, err)
	got, err = b.secure(b.dial("allowed.example.com", 443), "denied.example.com")
	denied(t, "sni-spoof", got, err)
	got, err = b.secure(b.dial("denied.example.com", 443), "allowed.example.com")
	denied(t, "an allowed SNI on a denied name's address", got, err)
	unnamed := tls.Client(b.dial("allowed.example.com", 443), &tls.Config{InsecureSkipVerify: true})
	if err := unnamed.Handshake(); err == nil {
		t.Error("no-sni: the handshake is done")
	}
	l.quiet()
}

func TestAClientHelloInPiecesIsReadWhole(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com")
	for name, good := range map[string]bool{"allowed.example.com": true, "denied.example.com": false} {
		got, err := b.secure(&pieces{TCPConn: b.dial("allowed.example.com", 443), every: 100 * time.Millisecond}, name)
		if (err == nil) != good {
			t.Errorf("sni-fragment: %s: %q %v", name, got, err)
		}
	}
	for _, line := range l.inet.Seen() {
		if strings.Contains(line, "denied") {
			t.Errorf("the internet saw %q", line)
		}
	}
}

// pieces writes the first record as many of 7 bytes, with pauses.
type pieces struct {
	*net.TCPConn
	every time.Duration
	after bool
}

func (p *pieces) Write(b []byte) (int, error) {
	if p.after || len(b) < 5 || b[0] != 22 {
		return p.TCPConn.Write(b)
	}
	p.after = true
	for body := b[5:]; len(body) > 0; {
		n := min(7, len(body))
		if _, err := p.TCPConn.Write(append([]byte{22, 3, 1, 0, byte(n)}, body[:n]...)); err != nil {
			return 0, err
		}
		body = body[n:]
		time.Sleep(p.every / 10)
	}
	return len(b), nil
}

func TestOnlyTLSOn443AndHTTPOn80(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com", "allowed.example.com:8080")
	for what, c := range map[string]struct {
		port int
		say  string
	}{
		"non-tls-443":                {443, "SSH-2.0-tunnel\r\n"},
		"HTTP on 443":                {443, "GET / HTTP/1.1\r\nHost: allowed.example.com\r\n\r\n"},
		"other bytes on 80":          {80, "SSH-2.0-tunnel\r\n"},
		"host-spoof":                 {80, "GET / HTTP/1.1\r\nHost: denied.example.com\r\n\r\n"},
		"no host":                    {80, "GET / HTTP/1.0\r\n\r\n"},
		"two hosts":                  {80, "GET / HTTP/1.1\r\nHost: allowed.example.com\r\nHost: denied.example.com\r\n\r\n"},
		"another host in the URL":    {80, "GET http://denied.example.com/ HTTP/1.1\r\nHost: allowed.example.com\r\n\r\n"},
		"nested-connect":             {80, "CONNECT denied.example.com:443 HTTP/1.1\r\nHost: denied.example.com:443\r\n\r\n"},
		"nested-connect as itself":   {80, "CONNECT denied.example.com:443 HTTP/1.1\r\nHost: allowed.example.com\r\n\r\n"},
		"a space before the colon":   {80, "GET / HTTP/1.1\r\nHost : denied.example.com\r\nHost: allowed.example.com\r\n\r\n"},
		"HTTP on another port":       {8080, "GET / HTTP/1.1\r\nHost: denied.example.com\r\n\r\n"},
		"HTTP after an empty line":   {8080, "\r\nGET / HTTP/1.1\r\nHost: denied.example.com\r\n\r\n"},
		"HTTP in small letters":      {8080, "get / http/1.1\r\nHost: denied.example.com\r\n\r\n"},
		"a ClientHello that is none": {443, "\x16\x03\x01\x00\x05hello"},
		"an HTTP/2 preface":          {80, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	} {
		conn := b.dial("allowed.example.com", c.port)
		if _, err := io.WriteString(conn, c.say); err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseWrite()
		answer, err := io.ReadAll(conn)
		if strings.Contains(string(answer), "you asked") || strings.Contains(string(answer), "HTTP/1.1 200") {
			t.Errorf("%s: %q %v", what, answer, err)
		}
	}
	for _, line := range l.inet.Seen() {
		if strings.HasPrefix(line, "http") || strings.HasPrefix(line, "data") {
			t.Errorf("the internet saw %q", line)
		}
	}
}

func TestEveryRequestOnAConnectionIsChecked(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com")
	conn := b.dial("allowed.example.com", 80)
	say := "GET /first HTTP/1.1\r\nHost: allowed.example.com\r\n\r\nGET /second HTTP/1.1\r\nHost: denied.example.com\r\n\r\n"
	if _, err := io.WriteString(conn, say); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	if got := string(answer); !strings.Contains(got, "for /first") || !strings.Contains(got, "403 Forbidden") || strings.Contains(got, "for /second") {
		t.Errorf("keepalive-host: %q", got)
	}
	conn = b.dial("allowed.example.com", 80)
	if _, err := io.WriteString(conn, "POST /a HTTP/1.1\r\nHost: allowed.example.com\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: denied.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseWrite()
	_, _ = io.ReadAll(conn)
	for _, line := range l.inet.Seen() {
		if strings.Contains(line, "denied") || strings.Contains(line, "hidden") {
			t.Errorf("the internet saw %q", line)
		}
	}
}

func TestECHIsRefusedWhereThatIsWanted(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = l.cmd.Wait()
	l.config.StrictECH = true
	l.start()
	b := l.box("one", egress.Allowlist, "allowed.example.com")
	// A list of one configuration as RFC 9849 has it, for X25519, with allowed.example.com as its public name.
	name := "allowed.example.com"
	body := append([]byte{1, 0, 0x20, 0, 32}, append(make([]byte, 31), 9)...)
	body = append(body, 0, 4, 0, 1, 0, 1, 32, byte(len(name)))
	body = append(append(body, name...), 0, 0)
	config := append([]byte{0xfe, 0x0d, 0, byte(len(body))}, body...)
	list := append([]byte{0, byte(len(config))}, config...)
	client := tls.Client(b.dial("allowed.example.com", 443), &tls.Config{ServerName: "hidden.example.com", RootCAs: l.inet.CA, EncryptedClientHelloConfigList: list, MinVersion: tls.VersionTLS13})
	if err := client.Handshake(); err == nil || strings.Contains(err.Error(), "invalid encoded") || strings.Contains(err.Error(), "config") {
		t.Errorf("ech-outer: %v", err)
	}
	if e := l.heard("one", gateway.Denied, "allowed.example.com", 443); !strings.Contains(e.Reason, "Encrypted Client Hello") {
		t.Errorf("ech-outer: denied for %q", e.Reason)
	}
	l.quiet()
}

func TestDNSTellsAndCarriesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "*.example.com")
	for i := range 1000 {
		b.resolve(fmt.Sprintf("host%d.example.com", i))
		if i < 100 {
			b.resolve(fmt.Sprintf("secret-data-%d.evil.example.org", i))
		}
	}
	if first, again := b.resolve("Same.Example.com"), b.resolve("same.example.COM"); first != again {
		t.Errorf("one name has the addresses %s and %s", first, again)
	}
	for _, kind := range []uint16{dns.TypeTXT, dns.TypeSVCB, dns.TypeHTTPS, dns.TypeAAAA, dns.TypeANY, dns.TypeMX, dns.TypePTR, dns.TypeNULL} {
		if reply := b.ask(kind, "allowed.example.com"); len(reply.Answer) != 0 || reply.Rcode != dns.RcodeSuccess {
			t.Errorf("dns-types: %s is answered with %v", dns.TypeToString[kind], reply)
		}
	}
	for _, server := range []string{"169.254.1.1:53", "198.51.100.53:53", "8.8.8.8:53"} {
		for _, network := range []string{"udp4", "tcp4"} {
			conn, err := b.Dial(t.Context(), network, server)
			if err != nil {
				t.Fatal(err)
			}
			reply, _, err := new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion("a.evil.example.org.", dns.TypeA), &dns.Conn{Conn: conn})
			if err != nil || len(reply.Answer) != 1 || !strings.HasPrefix(reply.Answer[0].(*dns.A).A.String(), "198.18.") {
				t.Errorf("dns-elsewhere: %s over %s: %v %v", server, network, reply, err)
			}
			_ = conn.Close()
		}
	}
	got, err := get(b.dialAddress("198.51.100.10:853"), "x", "/")
	denied(t, "dns-elsewhere: 853", got, err)
	l.quiet()
}

func TestAnAllowedNameLeadsToNoPrivateAddress(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "*.example.com:*", "10.99.0.1/32:80")
	for i, address := range []string{"10.0.0.1", "10.99.0.1", "10.99.0.2", "169.254.169.254", "127.0.0.1", "100.64.0.1", "198.18.0.1", "0.0.0.0", "192.168.1.1", "172.16.0.1", "224.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "::1", "fe80::1"} {
		name := fmt.Sprintf("rebind%d.example.com", i)
		l.inet.Name(name, address)
		got, err := b.secure(b.dial(name, 443), name)
		denied(t, "rebind: "+address, got, err)
	}
	for _, line := range l.inet.Seen() {
		if strings.HasPrefix(line, "tcp") || strings.HasPrefix(line, "tls") {
			t.Errorf("the internet saw %q", line)
		}
	}
	if l.inet.Name("inside.example.com", "10.99.0.1"); true {
		served := make(chan struct{})
		l.inet.Do(func() {
			listener, err := net.Listen("tcp4", "10.99.0.1:80")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = listener.Close() })
			go func() {
				defer close(served)
				if c, err := listener.Accept(); err == nil {
					_, _ = c.Read(make([]byte, 1000))
					_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
					_ = c.Close()
				}
			}()
		})
		if got, err := get(b.dial("inside.example.com", 80), "inside.example.com", "/"); !strings.Contains(got, "204") {
			t.Errorf("an address that a rule names: %q %v", got, err)
		}
		<-served
	}
}

func TestNothingButTCPAndDNSLeaves(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com:*")
	arrived := make(chan string, 10)
	l.inet.Do(func() {
		udp, err := net.ListenPacket("udp4", "198.51.100.10:443")
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = udp.Close() })
		go func() {
			buffer := make([]byte, 100)
			for {
				n, _, err := udp.ReadFrom(buffer)
				if err != nil {
					return
				}
				arrived <- string(buffer[:n])
			}
		}()
	})
	for _, address := range []string{"198.51.100.10:443", b.resolve("allowed.example.com").String() + ":443", "169.254.1.1:9999", "10.99.0.2:53000"} {
		conn, err := b.Dial(t.Context(), "udp4", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := conn.Write([]byte("quic")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("quic: %s: %v; a client should see an ICMP error", address, err)
		}
		_ = conn.Close()
	}
	for _, address := range []string{"198.51.100.10", "169.254.1.1", "10.99.0.1"} {
		if ping(t, b, address) {
			t.Errorf("icmp-tunnel: %s answers", address)
		}
	}
	select {
	case what := <-arrived:
		t.Errorf("quic: %q arrived", what)
	default:
	}
	l.quiet()
}

// short is a context for what gets no answer.
func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// ping sends an echo request and tells whether a reply came.
func ping(t *testing.T, b *box, address string) bool {
	t.Helper()
	conn, err := b.Dial(short(t), "ip4:icmp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
	echo := []byte{8, 0, 0xf7, 0xfc, 0, 1, 0, 2}
	if _, err := conn.Write(echo); err != nil {
		return false
	}
	for answer := make([]byte, 200); ; {
		n, _, err := conn.(*net.IPConn).ReadFrom(answer) // Read would give the header too
		if err != nil {
			return false
		}
		if n >= 1 && answer[0] == 0 {
			return true
		}
	}
}

func TestSandboxesDontReachEachOtherNorTheGateway(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	one, two := l.box("one", egress.Allowlist, "10.99.0.0/24:*"), l.box("two", egress.Unrestricted)
	for _, b := range []*box{one, two} {
		b.listen(func() string {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.events = append(l.events, gateway.Event{Verdict: "reached", Sandbox: b.name})
			return ""
		})
	}
	for _, c := range []struct {
		from *box
		to   string
	}{{one, "10.99.0.129:9000"}, {two, "10.99.0.128:9000"}, {one, "169.254.1.1:15001"}, {two, "169.254.1.1:15001"}, {one, "10.99.0.2:15001"}, {two, "10.99.0.2:15001"}, {two, "10.99.0.2:53"}} {
		if conn, err := c.from.Dial(short(t), "tcp4", c.to); err == nil {
			_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
			if n, err := conn.Read(make([]byte, 1)); n > 0 {
				t.Errorf("peer: %s gets an answer of %s: %v", c.from.name, c.to, err)
			}
			_ = conn.Close()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Verdict == "reached" {
			t.Errorf("peer: %s was reached", e.Sandbox)
		}
	}
}
