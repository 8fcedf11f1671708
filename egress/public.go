package egress

import (
	"net/netip"
	"slices"
)

// Synthetic is the network of the gateways' own addresses: RFC 2544's, for tests of devices, which no host on the
// internet has.
var Synthetic = netip.MustParsePrefix("198.18.0.0/15")

// reserved are the networks that are not the internet's, after IANA's registry of special-purpose addresses. The networks
// for documentation are not among them: closed networks use them.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("192.168.0.0/16"),
	Synthetic, netip.MustParsePrefix("224.0.0.0/3"),
}

// Public tells whether an address is an IPv4 address of the internet.
func Public(a netip.Addr) bool {
	return a.Is4() && !slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}
