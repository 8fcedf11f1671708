package gateway

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"pixels/egress"
)

// answerLife is how long a client may keep an answer, in seconds. Addresses stay good for longer.
const answerLife = 5

// serveDNS answers all questions of sandboxes by itself, over UDP and TCP: every name has an address of the gateway's
// making, whether it is allowed or not, so that nothing is asked outside and nothing can be learnt or sent by asking.
// Only for a sandbox that may reach everything are questions passed on.
func (g *Gateway) serveDNS(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, network := range []string{"udp4", "tcp4"} {
		server := &dns.Server{Addr: ":53", Net: network, Handler: dns.HandlerFunc(g.answer), ReusePort: true, ReadTimeout: 5 * time.Second, MaxTCPQueries: 128,
			NotifyStartedFunc: func() { g.listening <- struct{}{} }}
		group.Go(server.ListenAndServe)
		context.AfterFunc(ctx, func() { _ = server.Shutdown() })
	}
	return group.Wait()
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

// maxNames bounds the names that one sandbox may have addresses for; the one that was asked for longest ago gives way.
const maxNames = 16384

// Synthetic is the network of the gateway's own addresses: RFC 2544's, for tests of devices, which no host on the
// internet has.
var Synthetic = netip.MustParsePrefix("198.18.0.0/15")

// names are the addresses that one sandbox was given for names.
type names struct {
	mu        sync.Mutex
	byName    map[string]*list.Element
	byAddress map[netip.Addr]*list.Element
	recent    *list.List // of named, the latest in front
	next      int
}

type named struct {
	name    string
	address netip.Addr
}

func newNames() *names {
	return &names{byName: map[string]*list.Element{}, byAddress: map[netip.Addr]*list.Element{}, recent: list.New()}
}

// address returns the address of a name, which it makes when there is none.
func (n *names) address(name string) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.byName[name]; e != nil {
		n.recent.MoveToFront(e)
		return e.Value.(named).address
	}
	if n.recent.Len() == maxNames {
		last := n.recent.Remove(n.recent.Back()).(named)
		delete(n.byName, last.name)
		delete(n.byAddress, last.address)
	}
	size := 1<<(32-Synthetic.Bits()) - 2
	var a netip.Addr
	for taken := true; taken; _, taken = n.byAddress[a] {
		n.next = n.next%size + 1
		a = address(Synthetic.Addr(), n.next)
	}
	e := n.recent.PushFront(named{name, a})
	n.byName[name], n.byAddress[a] = e, e
	return a
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
