package gateway

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"

	"pixels/internal/neighbour"
)

// leaseTime is how long a sandbox may keep its address before it asks again. It gets the same one.
const leaseTime = time.Hour

// serveDHCP tells each sandbox the address that its wire has: a network of that address alone, with the router by a route
// of its own (RFC 3442), as clouds do it.
func (g *Gateway) serveDHCP(ctx context.Context) error {
	socket, err := (&net.ListenConfig{Control: shared}).ListenPacket(ctx, "udp4", ":67")
	if err != nil {
		return err
	}
	defer socket.Close()
	context.AfterFunc(ctx, func() { _ = socket.Close() })
	packets := ipv4.NewPacketConn(socket)
	if err := packets.SetControlMessage(ipv4.FlagInterface, true); err != nil {
		return err
	}
	g.listening <- struct{}{}
	buffer := make([]byte, 1500)
	for {
		n, control, _, err := packets.ReadFrom(buffer)
		if err != nil {
			return err
		}
		reply, index := g.lease(buffer[:n], control)
		if reply == nil {
			continue
		}
		to := &net.UDPAddr{IP: net.IPv4bcast, Port: 68}
		_, _ = packets.WriteTo(reply.ToBytes(), &ipv4.ControlMessage{IfIndex: index, Src: neighbour.Router.AsSlice()}, to) // it asks again
	}
}

// lease answers one request, and says on which interface; nil when it is none, or comes from where no sandbox is.
func (g *Gateway) lease(packet []byte, control *ipv4.ControlMessage) (*dhcpv4.DHCPv4, int) {
	request, err := dhcpv4.FromBytes(packet)
	if err != nil || control == nil || request.OpCode != dhcpv4.OpcodeBootRequest {
		return nil, 0
	}
	kind := dhcpv4.MessageTypeAck
	switch request.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform:
	default:
		return nil, 0
	}
	address, ok := g.addressOn(control.IfIndex)
	if !ok {
		return nil, 0
	}
	// A table of neighbours that another sandbox has filled must not keep this one from its way out.
	if len(request.ClientHWAddr) == 6 {
		_ = neighbour.Keep(control.IfIndex, address.AsSlice(), request.ClientHWAddr) // else the kernel asks for it
	}
	wanted := request.RequestedIPAddress()
	if wanted == nil {
		wanted = request.ClientIPAddr
	}
	if kind == dhcpv4.MessageTypeAck && len(wanted.To4()) == 4 && !wanted.IsUnspecified() && !wanted.Equal(address.AsSlice()) {
		kind = dhcpv4.MessageTypeNak // a clone that asks for its source's address
	}
	router := net.IP(neighbour.Router.AsSlice())
	options := []dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(router), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(router)), dhcpv4.WithBroadcast(true)}
	if kind != dhcpv4.MessageTypeNak {
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		options = append(options,
			dhcpv4.WithYourIP(address.AsSlice()), dhcpv4.WithNetmask(net.CIDRMask(32, 32)), dhcpv4.WithRouter(router), dhcpv4.WithDNS(router),
			dhcpv4.WithLeaseTime(uint32(leaseTime.Seconds())),
			dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
				&dhcpv4.Route{Dest: &net.IPNet{IP: router, Mask: net.CIDRMask(32, 32)}, Router: net.IPv4zero},
				&dhcpv4.Route{Dest: all, Router: router})))
	}
	reply, err := dhcpv4.NewReplyFromRequest(request, options...)
	if err != nil {
		return nil, 0
	}
	return reply, control.IfIndex
}

func (g *Gateway) addressOn(index int) (netip.Addr, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.wires {
		if w.index == index && w.state == Taken {
			return w.address, true
		}
	}
	return netip.Addr{}, false
}
