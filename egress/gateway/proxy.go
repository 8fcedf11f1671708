package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"pixels/egress"
)

// How long a client may take until it has said what it wants, and how long connecting for it may take.
const (
	sayTime     = 10 * time.Second
	connectTime = 10 * time.Second
)

// flow is one connection of a sandbox.
type flow struct {
	g       *Gateway
	w       *wire
	client  *net.TCPConn
	target  netip.AddrPort // what the client dialled
	name    string         // what that address was given out for; empty when it has no name
	address string         // set when name is empty
	port    uint16

	passed bool   // it was let through; guarded by Gateway.mu, as once and cost are
	once   string // the grant for one connection that let it through
	cost   int    // bytes that it is charged with
	from   uint16 // the client's port, by which the sandbox can tell whose it is

	heard   *opening // how the client began, once that is known
	greeted int64    // bytes that the server said before the client said anything

	mu       sync.Mutex
	upstream []net.Conn
	over     bool
}

// serveProxy takes connections until serving ends; they live until ctx does.
func (g *Gateway) serveProxy(serving, ctx context.Context) error {
	listener, err := (&net.ListenConfig{Control: shared}).Listen(serving, "tcp4", fmt.Sprintf(":%d", proxyPort))
	if err != nil {
		return err
	}
	context.AfterFunc(serving, func() { _ = listener.Close() })
	g.listening <- struct{}{}
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // such as no free descriptors, which passes
			g.log.Error().Err(err).Msg("accept a connection")
			time.Sleep(10 * time.Millisecond)
			continue
		}
		g.flowing.Go(func() { g.serve(ctx, conn.(*net.TCPConn)) })
	}
}

// serve is the life of one connection.
func (g *Gateway) serve(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	w := g.on(client.RemoteAddr())
	target, err := originalDestination(client)
	if w == nil || err != nil {
		return
	}
	f := &flow{g: g, w: w, client: client, target: target, port: target.Port(), from: client.RemoteAddr().(*net.TCPAddr).AddrPort().Port()}
	g.mu.Lock()
	if f.name, _ = w.names.name(target.Addr()); f.name == "" {
		f.address = target.Addr().String()
	}
	if w.state != Taken || !f.charge(plainCost) {
		if w.state == Taken {
			g.full(w)
		}
		g.mu.Unlock()
		_ = client.SetLinger(0)
		return
	}
	w.flows[f] = struct{}{}
	f.passed = f.admit()
	passed := f.passed
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(w.flows, f)
		g.giveBack(w, f.cost)
		g.mu.Unlock()
		f.close()
	}()
	patient(client, clientPatience)
	switch {
	case !passed && f.name == "":
		f.deny("an address that stands for no name; connect by name")
	case !passed && !f.hold(ctx):
		f.deny("no rule allows it")
	default:
		stop := context.AfterFunc(ctx, func() { f.cut() })
		defer stop()
		f.pass(ctx)
	}
}

// charge has the connection cost more bytes, if there are so many. g.mu is held.
func (f *flow) charge(bytes int) bool {
	ok := f.g.charge(f.w, bytes)
	if ok {
		f.cost += bytes
	}
	return ok
}

// allowed tells whether a policy lets the connection out.
func (f *flow) allowed(p egress.Policy) bool {
	if f.name != "" {
		_, ok := p.Allows(f.name, f.port)
		return ok || f.once != "" && p.Keeps(f.once, f.name, f.port) || off(ProtectNames)
	}
	_, ok := p.AllowsAddress(f.target.Addr(), f.port)
	return ok || off(ProtectAddresses)
}

// pass looks at how the client begins, checks that, and connects it. On 443 and 80 nothing but TLS and HTTP passes. On
// other ports a client that waits for the server to speak first gets what the server says meanwhile.
func (f *flow) pass(ctx context.Context) {
	if f.name == "" { // a rule for addresses
		if up := f.connect(ctx); up != nil {
			f.splice(up, nil)
		}
		return
	}
	var up net.Conn
	var o opening
	if f.port == 443 || f.port == 80 {
		o = listen(f.client, listening{patience: sayTime, onlyTLS: f.port == 443, onlyHTTP: f.port == 80})
	} else {
		if up = f.connect(ctx); up == nil {
			return
		}
		o = f.listenBoth(up)
	}
	f.heard = &o
	if o.kind == broken && off(ProtectOpenings) || o.kind == overHTTP && off(ProtectHosts) {
		o.kind = other
	}
	switch o.kind {
	case silent:
		return
	case broken:
		f.deny(fmt.Sprintf("what came on port %d is not %s, or can't be checked", f.port, map[bool]string{true: "HTTP", false: "TLS"}[f.port == 80]))
		return
	case overTLS:
		if reason := f.checkTLS(o); reason != "" {
			f.deny(reason)
			return
		}
	case overHTTP:
		if up != nil {
			_ = up.Close()
		}
		f.g.mu.Lock()
		room := f.charge(httpCost)
		f.g.mu.Unlock()
		if !room {
			f.deny(fullReason)
			return
		}
		f.serveHTTP(ctx, o.bytes)
		return
	}
	if up == nil {
		if up = f.connect(ctx); up == nil {
			return
		}
	}
	first := o.bytes
	o.bytes = nil // they are not kept as long as the connection lives
	f.splice(up, first)
}

func (f *flow) checkTLS(o opening) string {
	switch {
	case off(ProtectServerNames):
	case o.host == "":
		return "TLS without a server name (SNI), which can't be checked"
	case o.host != f.name:
		return fmt.Sprintf("TLS for %q on an address of %s", o.host, f.name)
	case o.ech && f.g.config.StrictECH && !off(ProtectStrictECH):
		return "TLS with an Encrypted Client Hello, which can't be checked"
	}
	return ""
}

// listenBoth waits for the client's opening and passes on what the server says before it. A client whose server spoke first
// doesn't speak HTTP.
func (f *flow) listenBoth(up net.Conn) opening {
	var spoken atomic.Bool
	heard := make(chan opening, 1)
	go func() {
		o := listen(f.client, listening{patience: time.Hour, spoken: &spoken})
		_ = up.SetReadDeadline(time.Unix(1, 0)) // wakes the copy below
		heard <- o
	}()
	greeting := make([]byte, 4096)
	n, err := up.Read(greeting)
	if n > 0 {
		spoken.Store(true)
		if _, err = f.client.Write(greeting[:n]); err == nil {
			f.greeted, err = io.Copy(f.client, up)
		}
		f.greeted += int64(n)
	}
	if err == nil || errors.Is(err, io.EOF) { // the server has said all that it will
		_ = f.client.CloseWrite()
	}
	o := <-heard
	_ = up.SetReadDeadline(time.Time{})
	return o
}

// splice joins the two ends until both are done. first is what the client has said already.
func (f *flow) splice(up net.Conn, first []byte) {
	f.tell(Event{Verdict: Allowed})
	var sent, received int64
	var both sync.WaitGroup
	var mu sync.Mutex
	sentAll, receivedAll := false, false
	both.Go(func() {
		n, err := up.Write(first)
		first = nil
		sent = int64(n)
		if err == nil {
			n, _ := io.Copy(up, f.client)
			sent += n
		}
		_ = up.(*net.TCPConn).CloseWrite()
		mu.Lock()
		sentAll = true
		over := receivedAll
		mu.Unlock()
		if !over && awaitGone(f.client) { // what the server says has nobody to hear it
			_ = up.Close()
		}
	})
	received, _ = io.Copy(f.client, up)
	mu.Lock()
	receivedAll = true
	if sentAll {
		_ = f.client.SetReadDeadline(time.Unix(1, 0)) // wakes awaitGone
	}
	mu.Unlock()
	_ = f.client.CloseWrite()
	both.Wait()
	f.tell(Event{Verdict: Ended, Sent: sent, Received: f.greeted + received})
}

// connect connects to where the name is now, or to the address that a rule allows. What it makes ends with the flow. It
// returns nil when there is no way there; the client was told then.
func (f *flow) connect(ctx context.Context) net.Conn {
	up, err := f.dial(ctx)
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		f.deny(refused.reason)
	case err != nil:
		f.tell(Event{Verdict: Failed, Reason: err.Error()})
		_ = f.client.SetLinger(0)
	}
	if err != nil {
		return nil
	}
	return up
}

// dial is connect without a word to the client.
func (f *flow) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	f.g.mu.Lock()
	policy := f.w.policy
	f.g.mu.Unlock()
	up, err := f.g.dial(ctx, policy, f.name, f.target)
	if err != nil {
		return nil, err
	}
	// The policy may have changed meanwhile.
	f.g.mu.Lock()
	allowed := f.allowed(f.w.policy)
	f.g.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !allowed || f.over {
		_ = up.Close()
		return nil, &refusedError{"no longer allowed"}
	}
	f.upstream = append(f.upstream, up)
	return up, nil
}

// cut resets the connection on both ends. It tells whether there was anything to cut.
func (f *flow) cut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return false
	}
	f.over = true
	for _, c := range append([]net.Conn{f.client}, f.upstream...) { // the client first, so that it sees a reset and no end
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	return true
}

func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	for _, c := range f.upstream {
		_ = c.Close()
	}
}

func (f *flow) tell(e Event) {
	e.Domain, e.Address, e.Port, e.From, e.Once = f.name, f.address, f.port, f.from, f.once
	f.g.report(f.w, e)
}

// deny tells those who watch, then the client: in the protocol that it speaks, or by a reset.
func (f *flow) deny(reason string) {
	f.tell(Event{Verdict: Denied, Reason: reason})
	f.mu.Lock()
	f.over = true // there is nothing left to cut
	f.mu.Unlock()
	done, ok := f.mayDeny()
	if !ok {
		_ = f.client.SetLinger(0)
		return
	}
	defer done()
	if f.heard == nil {
		o := listen(f.client, listening{patience: time.Second})
		f.heard = &o
	}
	_ = f.client.SetWriteDeadline(time.Now().Add(time.Second))
	switch f.heard.kind {
	case overTLS:
		_, _ = f.client.Write([]byte{21, 3, 3, 0, 2, 2, 49}) // a fatal alert: access denied (RFC 8446, 6)
	case overHTTP:
		text := f.denial(reason)
		_, _ = fmt.Fprintf(f.client, "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	default:
		_ = f.client.SetLinger(0)
		return
	}
	_ = f.client.CloseWrite()
	_ = f.client.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.Copy(io.Discard, io.LimitReader(f.client, 1<<20)) // unread bytes would turn the answer into a reset
}

func (f *flow) denial(reason string) string {
	where := f.name
	if where == "" {
		where = f.address
	}
	return fmt.Sprintf("pixels: %s:%d is denied to this sandbox: %s.\nAsk for it with the tool allow_domain: domains [\"%s\"].\n",
		where, f.port, reason, egress.Ask(where, f.port))
}

// originalDestination returns where a connection went before nftables sent it here (SO_ORIGINAL_DST, see
// linux/netfilter_ipv4.h). The kernel writes a sockaddr_in, which fits into the 16 bytes of an IPv6 multicast address:
// that is how x/sys reads it without unsafe code.
func originalDestination(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var mreq *unix.IPv6Mreq
	var failed error
	if err := raw.Control(func(fd uintptr) { mreq, failed = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST) }); err != nil {
		return netip.AddrPort{}, err
	}
	if failed != nil {
		return netip.AddrPort{}, failed
	}
	b := mreq.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3])), nil
}

// lower brings a host as clients write it into the form of names; a port at its end is cut off. What is no name is empty.
func lower(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	name, err := egress.Name(host)
	if err != nil || strings.ContainsAny(host, "[]") {
		return ""
	}
	return name
}

// replay is a connection of which some bytes were read already.
type replay struct {
	*net.TCPConn
	first *bytes.Reader
}

func (r *replay) Read(p []byte) (int, error) {
	if r.first.Len() > 0 {
		return r.first.Read(p)
	}
	return r.TCPConn.Read(p)
}
