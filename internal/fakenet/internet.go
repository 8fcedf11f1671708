package fakenet

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Addresses of the internet's servers. Each has HTTP on 80 and 8080, TLS on 443 and 8443, an echo on 7, as many bytes as one asks for on 9, a server that speaks
// first on 22, one that answers HTTP wrongly on 8081, one that says nothing and never closes on 9005, and one that doesn't
// read on 9006.
const (
	Site      = "198.51.100.10"
	OtherSite = "198.51.100.11"
	DNS       = "198.51.100.53"
)

// Internet logs all that arrives at it.
type Internet struct {
	*Space
	CA    *x509.CertPool // of its servers
	cert  tls.Certificate
	mu    sync.Mutex
	zones map[string][]string
	slow  time.Duration
	seen  []string

	serving sync.WaitGroup
	ctx     context.Context // of what serves
}

// NewInternet makes the servers in a namespace.
func NewInternet(t testing.TB) *Internet {
	t.Helper()
	in := &Internet{Space: NewSpace(t), CA: x509.NewCertPool(), zones: map[string][]string{}}
	var end context.CancelFunc
	in.ctx, end = context.WithCancel(context.Background())
	t.Cleanup(func() { end(); in.serving.Wait() })
	in.certificate()
	in.dns()
	for _, a := range []string{Site, OtherSite} {
		in.Address("lo", a+"/32")
		in.listen(a+":7", in.echo)
		in.listen(a+":22", in.first)
		in.listen(a+":853", in.echo)
		in.listen(a+":9", in.plenty)
		in.listen(a+":8081", in.wrong)
		in.listen(a+":9005", in.deaf)
		in.listen(a+":9006", func(net.Conn) { <-in.ctx.Done() })
		in.webServers(a, http.HandlerFunc(in.web))
	}
	return in
}

// Name has the DNS answer a name with addresses of either family; none means that it has none.
func (in *Internet) Name(name string, addresses ...string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.zones[name] = addresses
}

// Forget has the internet know no names and remember nothing, as it was made.
func (in *Internet) Forget() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.zones, in.seen, in.slow = map[string][]string{}, nil, 0
}

// SlowDNS delays each answer.
func (in *Internet) SlowDNS(by time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.slow = by
}

// Seen returns what arrived since the last call, as lines: dns NAME, tcp ADDRESS, http HOST, tls SNI, data TEXT.
func (in *Internet) Seen() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := in.seen
	in.seen = nil
	return out
}

func (in *Internet) saw(format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.seen = append(in.seen, fmt.Sprintf(format, args...))
}

// dns answers for the names that the test gave it.
func (in *Internet) dns() {
	in.t.Helper()
	in.Address("lo", DNS+"/32")
	handler := dns.HandlerFunc(func(out dns.ResponseWriter, q *dns.Msg) {
		name := strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
		in.saw("dns %s", name)
		in.mu.Lock()
		addresses, known := in.zones[name]
		slow := in.slow
		in.mu.Unlock()
		time.Sleep(slow)
		reply := new(dns.Msg).SetReply(q)
		if !known {
			reply.Rcode = dns.RcodeNameError
		}
		for _, a := range addresses {
			kind := "A"
			if strings.Contains(a, ":") {
				kind = "AAAA"
			}
			if rr, err := dns.NewRR(fmt.Sprintf("%s 1 IN %s %s", q.Question[0].Name, kind, a)); err == nil && dns.TypeToString[q.Question[0].Qtype] == kind {
				reply.Answer = append(reply.Answer, rr)
			}
		}
		_ = out.WriteMsg(reply)
	})
	server := &dns.Server{Handler: handler}
	in.Do(func() {
		var err error
		if server.PacketConn, err = net.ListenPacket("udp4", DNS+":53"); err != nil {
			in.t.Error(err)
		}
	})
	in.serving.Go(func() { _ = server.ActivateAndServe() })
	in.t.Cleanup(func() { _ = server.Shutdown() })
}

func (in *Internet) listener(address string) (l net.Listener) {
	in.t.Helper()
	var err error
	in.Do(func() { l, err = net.Listen("tcp4", address) })
	if err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(func() { _ = l.Close() })
	return l
}

func (in *Internet) listen(address string, serve func(net.Conn)) {
	in.t.Helper()
	l := in.listener(address)
	in.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in.saw("tcp %s", address)
			in.serving.Go(func() {
				defer c.Close()
				defer context.AfterFunc(in.ctx, func() { _ = c.Close() })()
				serve(c)
			})
		}
	})
}

func (in *Internet) echo(c net.Conn) {
	buffer := make([]byte, 4096)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			return
		}
		in.saw("data %s", buffer[:n])
		if _, err := c.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// plenty answers a number, which any other byte may precede, with as many bytes.
func (in *Internet) plenty(c net.Conn) {
	var n int64
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		return
	}
	if _, err := fmt.Fscanln(c, &n); err == nil {
		_, _ = io.CopyN(c, zeros{}, n)
	}
}

func (in *Internet) first(c net.Conn) {
	_, _ = io.WriteString(c, "hello from the server\n")
	in.echo(c)
}

// deaf reads all that comes, says nothing, and keeps the connection when the other end has closed it.
func (in *Internet) deaf(c net.Conn) {
	_, _ = io.Copy(io.Discard, c)
	<-in.ctx.Done()
}

// wrong answers a request for /line with a first line of 9 MiB, one for /head with as many headers, one for /early with
// answers before the answer without end, and others with what is no HTTP.
func (in *Internet) wrong(c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	const much = 9 << 20
	switch r.URL.Path {
	case "/line":
		_, _ = io.WriteString(c, strings.Repeat("x", much)+"\r\n")
	case "/head":
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X-Y: "+strings.Repeat("z", 1000)+"\r\n", much/1000)+"\r\n")
	case "/early":
		for err == nil {
			_, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("z", 1000)+"\r\n\r\n")
		}
	default:
		_, _ = io.WriteString(c, "\x00\xff\n\n")
	}
}

func (in *Internet) webServers(address string, handler http.Handler) {
	plain, secure := &http.Server{Handler: handler}, &http.Server{Handler: handler}
	for _, port := range []string{":80", ":8080"} {
		l := in.listener(address + port)
		in.serving.Go(func() { _ = plain.Serve(l) })
	}
	for _, port := range []string{":443", ":8443"} {
		l := tls.NewListener(in.listener(address+port), &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			in.saw("tls %s", h.ServerName)
			return &tls.Config{Certificates: []tls.Certificate{in.cert}}, nil
		}})
		in.serving.Go(func() { _ = secure.Serve(l) })
	}
	in.t.Cleanup(func() { _, _ = plain.Close(), secure.Close() })
}

// web answers /bytes/N with N bytes, /slow with a line a tenth of a second, and all else with what was asked for.
func (in *Internet) web(out http.ResponseWriter, r *http.Request) {
	in.saw("http %s %s %s", r.Method, r.Host, r.RequestURI)
	var n int64
	if _, err := fmt.Sscanf(r.URL.Path, "/bytes/%d", &n); err == nil {
		out.Header().Set("Content-Length", fmt.Sprint(n))
		_, _ = io.CopyN(out, zeros{}, n)
		return
	}
	if r.URL.Path == "/slow" {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(out, "still here\n"); err != nil {
				return
			}
			out.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
		return
	}
	body, _ := io.ReadAll(r.Body)
	_, _ = fmt.Fprintf(out, "you asked %s for %s%s", r.Host, r.URL.Path, body)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// certificate makes one that every name under example.com, example.net and example.org may use.
func (in *Internet) certificate() {
	in.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		in.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fake internet"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"*.example.com", "*.example.net", "*.example.org", "example.com", "example.net", "example.org"},
		IPAddresses: []net.IP{netip.MustParseAddr(Site).AsSlice()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		in.t.Fatal(err)
	}
	in.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		in.t.Fatal(err)
	}
	in.CA.AddCert(leaf)
}
