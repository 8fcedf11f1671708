package gateway

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"pixels/internal/neighbour"
)

// proxyPort is where nftables sends all TCP of sandboxes.
const proxyPort = 15001

// filter is the gateway's nftables. Its rules are written once; who is on which wire is in sets.
type filter struct {
	mu     sync.Mutex
	wires  *nftables.Set // (interface, address) that belong together; what comes otherwise is dropped
	opened *nftables.Set // addresses of sandboxes that reach everything
	asking *nftables.Set // those that asked lately, each with how often it may
}

// newFilter puts the rules in place of whatever table of ours is there, in one step.
func newFilter(c Config) (*filter, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "pixels"}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	f := &filter{
		wires: &nftables.Set{Table: table, Name: "wires", Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr)},
		opened: &nftables.Set{Table: table, Name: "opened", KeyType: nftables.TypeIPAddr},
		asking: &nftables.Set{Table: table, Name: "asking", KeyType: nftables.TypeIPAddr, Dynamic: true, HasTimeout: true, Timeout: time.Minute, Size: 64 << 10},
	}
	for _, set := range []*nftables.Set{f.wires, f.opened, f.asking} {
		if err := conn.AddSet(set, nil); err != nil {
			return nil, err
		}
	}
	f.chains(conn, table, c)
	return f, conn.Flush()
}

func (f *filter) chains(conn *nftables.Conn, table *nftables.Table, c Config) {
	drop, accept := nftables.ChainPolicyDrop, nftables.ChainPolicyAccept
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, policy *nftables.ChainPolicy) func(...[]expr.Any) {
		added := conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority, Policy: policy})
		return func(parts ...[]expr.Any) {
			conn.AddRule(&nftables.Rule{Table: table, Chain: added, Exprs: slices.Concat(parts...)})
		}
	}
	wire, up := fromWire(), from(c.Uplink)

	// What comes from a wire has the address of the sandbox on it, or is a question for one.
	raw := chain("prerouting_raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, &accept)
	raw(wire, protocol(unix.IPPROTO_UDP), source(netip.IPv4Unspecified()), port(67), verdict(expr.VerdictAccept))
	raw(wire, onlyIPv4(), interfaceAndSource(f.wires), verdict(expr.VerdictAccept))
	if !off(ProtectSources) {
		raw(wire, verdict(expr.VerdictDrop))
	}

	nat := chain("prerouting_nat", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, &accept)
	if off(ProtectRedirects) {
		nat(wire, verdict(expr.VerdictReturn))
	}
	nat(wire, onlyIPv4(), sourceIn(f.opened), destination(neighbour.Router, expr.CmpOpNeq), verdict(expr.VerdictReturn))
	nat(wire, onlyIPv4(), protocol(unix.IPPROTO_UDP), port(53), redirect(53))
	nat(wire, onlyIPv4(), protocol(unix.IPPROTO_TCP), port(53), redirect(53))
	nat(wire, onlyIPv4(), protocol(unix.IPPROTO_TCP), redirect(proxyPort))

	input := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, &drop)
	if off(ProtectInput) {
		input(verdict(expr.VerdictAccept))
	}
	input(from("lo"), verdict(expr.VerdictAccept))
	input(wire, onlyIPv4(), protocol(unix.IPPROTO_UDP), port(53), tooOften(f.asking), verdict(expr.VerdictDrop))
	input(wire, onlyIPv4(), protocol(unix.IPPROTO_UDP), port(53), verdict(expr.VerdictAccept))
	input(wire, onlyIPv4(), protocol(unix.IPPROTO_UDP), port(67), verdict(expr.VerdictAccept))
	input(wire, onlyIPv4(), protocol(unix.IPPROTO_TCP), destinationChanged(), port(53), verdict(expr.VerdictAccept))
	input(wire, onlyIPv4(), protocol(unix.IPPROTO_TCP), destination(neighbour.Router, expr.CmpOpEq), port(53), verdict(expr.VerdictAccept))
	input(wire, onlyIPv4(), protocol(unix.IPPROTO_TCP), destinationChanged(), port(proxyPort), verdict(expr.VerdictAccept))
	input(wire, onlyIPv4(), reject())
	input(up, established(), verdict(expr.VerdictAccept))
	input(up, onlyIPv4(), protocol(unix.IPPROTO_ICMP), source(c.Host), verdict(expr.VerdictAccept))

	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, &drop)
	if off(ProtectRedirects) {
		forward(verdict(expr.VerdictAccept))
	}
	if !off(ProtectChanges) {
		forward(wire, to(c.Uplink), onlyIPv4(), marked(), sourceNotIn(f.opened), reset())
		forward(wire, to(c.Uplink), onlyIPv4(), marked(), sourceNotIn(f.opened), reject())
		forward(up, toWire(), onlyIPv4(), marked(), destinationNotIn(f.opened), reset())
		forward(up, toWire(), onlyIPv4(), marked(), destinationNotIn(f.opened), verdict(expr.VerdictDrop))
	}
	forward(wire, to(c.Uplink), onlyIPv4(), established(), verdict(expr.VerdictAccept))
	forward(up, toWire(), established(), verdict(expr.VerdictAccept))
	forward(up, toWire(), source(c.Host), begins(), verdict(expr.VerdictAccept))
	forward(up, toWire(), source(c.Host), notTCP(), verdict(expr.VerdictAccept))
	forward(wire, to(c.Uplink), onlyIPv4(), sourceIn(f.opened), setMark(), verdict(expr.VerdictAccept))
	forward(wire, onlyIPv4(), reject())
}

// admit lets what comes over a wire with its sandbox's address in.
func (f *filter) admit(w *wire, open bool) error {
	err := f.update(func(conn *nftables.Conn) error { return conn.SetAddElements(f.wires, element(w)) })
	if err == nil && open {
		_, err = f.open(w, true)
	}
	return err
}

// expel undoes admit. What is not there is no error.
func (f *filter) expel(w *wire) error {
	err := f.update(func(conn *nftables.Conn) error { return conn.SetDeleteElements(f.wires, element(w)) })
	_, closed := f.open(w, false)
	return errors.Join(absent(err), closed)
}

func (f *filter) update(change func(*nftables.Conn) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	if err := change(conn); err != nil {
		return err
	}
	return conn.Flush()
}

func absent(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func element(w *wire) []nftables.SetElement {
	return []nftables.SetElement{{Key: append(interfaceName(w.name()), w.address.AsSlice()...)}}
}

// interfaceName is a name as nftables compares it, filled up with zeros.
func interfaceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// What follows are the expressions of rules. The registers of the concatenation are 16 bytes for the interface in register
// 1, and the address in the next (register 2 begins right after it).
func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func reject() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

func compare(key expr.MetaKey, data []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

func from(name string) []expr.Any     { return compare(expr.MetaKeyIIFNAME, interfaceName(name)) }
func to(name string) []expr.Any       { return compare(expr.MetaKeyOIFNAME, interfaceName(name)) }
func fromWire() []expr.Any            { return compare(expr.MetaKeyIIFNAME, []byte(wirePrefix)) }
func toWire() []expr.Any              { return compare(expr.MetaKeyOIFNAME, []byte(wirePrefix)) }
func onlyIPv4() []expr.Any            { return compare(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}) }
func protocol(number byte) []expr.Any { return compare(expr.MetaKeyL4PROTO, []byte{number}) }

func payload(base expr.PayloadBase, offset, length uint32, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

func port(number uint16) []expr.Any {
	return payload(expr.PayloadBaseTransportHeader, 2, 2, expr.CmpOpEq, binaryutil.BigEndian.PutUint16(number))
}

// source compares an IPv4 packet's source; IPv4 is asked for with it, for family inet sees IPv6 too.
func source(a netip.Addr) []expr.Any {
	return slices.Concat(onlyIPv4(), payload(expr.PayloadBaseNetworkHeader, 12, 4, expr.CmpOpEq, a.AsSlice()))
}

func destination(a netip.Addr, op expr.CmpOp) []expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, 16, 4, op, a.AsSlice())
}

func sourceIn(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}}
}

// How many questions a sandbox may ask by UDP, a second and at once: the socket that they come to has one queue for all.
const (
	maxQuestions     = 500
	maxQuestionBurst = 2000
)

// tooOften holds for packets of a source that has sent more than it may.
func tooOften(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Dynset{SrcRegKey: 1, SetName: set.Name, SetID: set.ID, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Exprs: []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: maxQuestions, Unit: expr.LimitTimeSecond, Burst: maxQuestionBurst, Over: true}}}}
}

func interfaceAndSource(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Payload{DestRegister: 2, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}}
}

func redirect(number uint16) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(number)}, &expr.Redir{RegisterProtoMin: 1}}
}

func stateBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Register: 1, Key: key},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}}
}

func established() []expr.Any {
	return stateBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// destinationChanged holds for what a redirect brought here (IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h).
func destinationChanged() []expr.Any { return stateBits(expr.CtKeySTATUS, 1<<5) }
