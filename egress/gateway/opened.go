package gateway

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A sandbox that reaches everything does so without the proxy, and what it opens is marked. When it no longer may, the
// marked connections are refused in both directions, and known again however late the other end speaks: what the host
// sends then is no connection that the host opened.
const openedMark = 1

// open makes a sandbox's way out free of the proxy, or ends that with the connections that were made so, which it counts.
func (f *filter) open(w *wire, open bool) (cut int, err error) {
	key := []nftables.SetElement{{Key: w.address.AsSlice()}}
	if open {
		return 0, f.update(func(conn *nftables.Conn) error { return conn.SetAddElements(f.opened, key) })
	}
	err = f.update(func(conn *nftables.Conn) error { return conn.SetDeleteElements(f.opened, key) })
	if err != nil {
		return 0, absent(err) // it wasn't open, and so there is nothing to end
	}
	return opened(w.address)
}

// opened counts the connections from an address that passed without the proxy and are not over.
func opened(address netip.Addr) (n int, err error) {
	all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return 0, err
	}
	for _, c := range all {
		if c.Mark == openedMark && c.Forward.SrcIP.Equal(address.AsSlice()) && alive(c) {
			n++
		}
	}
	return n, nil
}

// alive tells whether a connection has an end that may still send.
func alive(c *netlink.ConntrackFlow) bool {
	tcp, ok := c.ProtoInfo.(*netlink.ProtoInfoTCP)
	return !ok || tcp.State < timeWait
}

// timeWait is TCP_CONNTRACK_TIME_WAIT of linux/netfilter/nf_conntrack_tcp.h; those before it are not over.
const timeWait = 7

// forget has the kernel forget all connections from and to an address, which another sandbox had before.
func (f *filter) forget(w *wire) error {
	var errs []error
	for _, end := range []netlink.ConntrackFilterType{netlink.ConntrackOrigSrcIP, netlink.ConntrackOrigDstIP} {
		tracked := &netlink.ConntrackFilter{}
		err := tracked.AddIP(end, w.address.AsSlice())
		if err == nil {
			_, err = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, tracked)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func marked() []expr.Any {
	return []expr.Any{&expr.Ct{Register: 1, Key: expr.CtKeyMARK},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(openedMark)}}
}

func setMark() []expr.Any {
	return []expr.Any{&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(openedMark)},
		&expr.Ct{Register: 1, SourceRegister: true, Key: expr.CtKeyMARK}}
}

// notIn holds for packets whose address at an offset of the IPv4 header is not in a set.
func notIn(set *nftables.Set, offset uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: true}}
}

func sourceNotIn(set *nftables.Set) []expr.Any      { return notIn(set, 12) }
func destinationNotIn(set *nftables.Set) []expr.Any { return notIn(set, 16) }

// begins holds for what begins a TCP connection: of FIN, SYN, RST and ACK it has SYN alone.
func begins() []expr.Any {
	return slices.Concat(protocol(unix.IPPROTO_TCP), []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x17}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x02}}})
}

func notTCP() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{unix.IPPROTO_TCP}}}
}

func reset() []expr.Any {
	return append(protocol(unix.IPPROTO_TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
}
