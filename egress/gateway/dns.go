package gateway

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"pixels/egress"
)

// answerLife is how long a client may keep an answer, in seconds. Addresses stay good for longer.
const answerLife = 5

// serveDNS answers all questions of sandboxes by itself, over UDP and TCP: every name has an address of the gateway's
// making, whether it is allowed or not, so that nothing is asked outside and nothing can be learnt or sent by asking.
// Only for a sandbox that may reach everything are questions passed on.
func (g *Gateway) serveDNS(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	settings := net.ListenConfig{Control: shared}
	packets, err := settings.ListenPacket(ctx, "udp4", ":53")
	if err != nil {
		return err
	}
	listener, err := settings.Listen(ctx, "tcp4", ":53")
	if err != nil {
		_ = packets.Close()
		return err
	}
	for _, server := range []*dns.Server{{PacketConn: packets}, {Listener: &charged{listener, g}}} {
		server.Handler, server.ReadTimeout, server.MaxTCPQueries = dns.HandlerFunc(g.answer), 5*time.Second, 128
		server.NotifyStartedFunc = func() { g.listening <- struct{}{} }
		group.Go(server.ActivateAndServe)
		context.AfterFunc(ctx, func() { _ = server.Shutdown() })
	}
	return group.Wait()
}

// serveQuestions answers what a sandbox asks by UDP on a socket of its wire's own, so that the questions of one wait behind no
// other's. What can't have one is answered on the socket for all. g.mu is held.
func (g *Gateway) serveQuestions(w *wire) {
	if g.serving == nil || g.serving.Err() != nil {
		return
	}
	settings := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), w.name()) })
		return errors.Join(shared(network, address, c), err, failed)
	}}
	packets, err := settings.ListenPacket(g.serving, "udp4", ":53")
	if err != nil {
		g.log.Error().Err(err).Int("wire", w.number).Msg("listen for questions")
		return
	}
	serving, stop := context.WithCancel(g.serving)
	w.stopQuestions = stop
	context.AfterFunc(serving, func() { _ = packets.Close() })
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(g.answer)}
	g.flowing.Go(func() { _ = server.ActivateAndServe() }) // it ends with the socket
}

// charged takes connections that sandboxes have a share for, and resets the others.
type charged struct {
	net.Listener
	g *Gateway
}

// Accept implements net.Listener.
func (l *charged) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		w := l.g.on(conn.RemoteAddr())
		l.g.mu.Lock()
		ok := w != nil && w.state == Taken && l.g.charge(w, dnsCost)
		if w != nil && w.state == Taken && !ok {
			l.g.full(w)
		}
		l.g.mu.Unlock()
		if ok {
			return &chargedConn{Conn: conn, g: l.g, w: w}, nil
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}

// chargedConn gives back what it is charged with when it is closed.
type chargedConn struct {
	net.Conn
	g    *Gateway
	w    *wire
	once sync.Once
}

// Close implements net.Conn.
func (c *chargedConn) Close() error {
	c.once.Do(func() {
		c.g.mu.Lock()
		defer c.g.mu.Unlock()
		c.g.giveBack(c.w, dnsCost)
	})
	return c.Conn.Close()
}

func (g *Gateway) answer(out dns.ResponseWriter, query *dns.Msg) {
	w := g.on(out.RemoteAddr())
	if w == nil || len(query.Question) != 1 {
		_ = out.Close()
		return
	}
	g.mu.Lock()
	open, names := w.policy.Mode == egress.Unrestricted, w.names
	g.mu.Unlock()
	if open || off(ProtectSyntheticDNS) {
		g.mu.Lock()
		room := w.asking < maxAsking && g.charge(w, askCost)
		if room {
			w.asking++
		}
		g.mu.Unlock()
		if !room {
			_ = out.WriteMsg(new(dns.Msg).SetRcode(query, dns.RcodeServerFailure))
			return
		}
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			w.asking--
			g.giveBack(w, askCost)
		}()
		g.passOn(out, query)
		return
	}
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	asked := query.Question[0]
	name, err := egress.Name(asked.Name)
	if err == nil && asked.Qtype == dns.TypeA && asked.Qclass == dns.ClassINET {
		reply.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: asked.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: answerLife},
			A:   names.address(name).AsSlice(),
		}}
	} else {
		// No such data; the SOA record is what tells a resolver how long that stays so (RFC 2308).
		reply.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: asked.Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: answerLife},
			Ns:  "gateway.invalid.", Mbox: "gateway.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: answerLife,
		}}
	}
	_ = out.WriteMsg(reply)
}

// What a question costs in bytes that is passed on, and how many one sandbox may have under way.
const (
	askCost   = 32 << 10
	maxAsking = 64
)

func (g *Gateway) passOn(out dns.ResponseWriter, query *dns.Msg) {
	network := "udp"
	if _, tcp := out.RemoteAddr().(*net.TCPAddr); tcp {
		network = "tcp"
	}
	client := &dns.Client{Net: network, Timeout: 4 * time.Second}
	reply, _, err := client.Exchange(query, g.config.Resolver.String())
	if err != nil {
		reply = new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
	}
	_ = out.WriteMsg(reply)
}

// How many names sandboxes may have addresses for; the one that was asked for longest ago gives way. All that there are are
// shared out among the sandboxes.
const (
	maxNames      = 64 << 10
	maxNamesOfOne = 8 << 10
	leastNames    = 256
)

// shareNames gives each sandbox its share of the names. g.mu is held.
func (g *Gateway) shareNames() {
	share := min(maxNamesOfOne, max(leastNames, maxNames/max(1, len(g.bySandbox))))
	for _, w := range g.bySandbox {
		w.names.bound(share)
	}
}

// names are the addresses that one sandbox was given for names.
type names struct {
	mu        sync.Mutex
	byName    map[string]*list.Element
	byAddress map[netip.Addr]*list.Element
	recent    *list.List // of named, the latest in front
	most      int        // how many there may be
	next      int
}

type named struct {
	name    string
	address netip.Addr
}

func newNames() *names {
	return &names{byName: map[string]*list.Element{}, byAddress: map[netip.Addr]*list.Element{}, recent: list.New(), most: maxNamesOfOne}
}

// address returns the address of a name, which it makes when there is none.
func (n *names) address(name string) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.byName[name]; e != nil {
		n.recent.MoveToFront(e)
		return e.Value.(named).address
	}
	n.shrink(n.most - 1)
	size := 1<<(32-egress.Synthetic.Bits()) - 2
	var a netip.Addr
	for taken := true; taken; _, taken = n.byAddress[a] {
		n.next = n.next%size + 1
		a = address(egress.Synthetic.Addr(), n.next)
	}
	e := n.recent.PushFront(named{name, a})
	n.byName[name], n.byAddress[a] = e, e
	return a
}

// bound changes how many there may be.
func (n *names) bound(most int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.most = most
	n.shrink(most)
}

// shrink forgets the oldest until there are so many. n.mu is held.
func (n *names) shrink(most int) {
	for n.recent.Len() > most {
		last := n.recent.Remove(n.recent.Back()).(named)
		delete(n.byName, last.name)
		delete(n.byAddress, last.address)
	}
}

// name returns the name that an address was given out for.
func (n *names) name(a netip.Addr) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.byAddress[a]
	if e == nil {
		return "", false
	}
	return e.Value.(named).name, true
}
