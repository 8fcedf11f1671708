package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"pixels/egress"
)

// refusedError is why a name that is allowed is not connected to all the same.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return e.reason }

// dial connects to a name, which it resolves now, or to target when there is no name.
func (g *Gateway) dial(ctx context.Context, policy egress.Policy, name string, target netip.AddrPort) (net.Conn, error) {
	addresses := []netip.Addr{target.Addr()}
	if name != "" {
		var err error
		if addresses, err = g.resolve(ctx, policy, name, target.Port()); err != nil {
			return nil, err
		}
	}
	var last error
	for _, a := range addresses {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp4", netip.AddrPortFrom(a, target.Port()).String())
		if err == nil {
			patient(conn.(*net.TCPConn), upstreamPatience)
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// maxAddresses is how many addresses of a name are tried.
const maxAddresses = 4

// resolve returns the addresses of a name that may be connected to: those on the internet, and those that a rule for
// addresses names. A name of a stranger's that leads into a private network is how that would be reached otherwise.
func (g *Gateway) resolve(ctx context.Context, policy egress.Policy, name string, port uint16) ([]netip.Addr, error) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, g.config.Resolver.String())
	}}
	all, err := resolver.LookupNetIP(ctx, "ip4", name+".") // with the dot no search domain is tried
	var failed *net.DNSError
	if errors.As(err, &failed) && failed.IsNotFound {
		return nil, fmt.Errorf("%s: there is no such name", name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s can't be resolved: %w", name, err)
	}
	var private, denied netip.Addr
	var good []netip.Addr
	for _, a := range all {
		a = a.Unmap()
		_, named := policy.AllowsAddress(a, port)
		switch {
		case policy.DeniesAddress(a, port):
			denied = a
		case a.Is4() && (named && policy.Mode != egress.Unrestricted || g.public(a)):
			good = append(good, a)
		default:
			private = a
		}
	}
	if len(good) == 0 && denied.IsValid() {
		return nil, &refusedError{fmt.Sprintf("it leads to %s, which a human denied", denied)}
	}
	if len(good) == 0 {
		return nil, &refusedError{fmt.Sprintf("it leads to %s, which is not on the internet; a human can allow that address with `pixels-mcp network allow NAME %s/32`", private, private)}
	}
	return good[:min(len(good), maxAddresses)], nil
}

// public tells whether an IPv4 address is the internet's, and not the gateway's own network.
func (g *Gateway) public(a netip.Addr) bool {
	return off(ProtectPrivateAddresses) || egress.Public(a) && !g.config.Address.Masked().Contains(a)
}
