package gateway

// Protection is one of the things that hold a sandbox back. Fault injection switches each off in turn, in a program that is
// built for it (with the tag pixels_weak), to show that a test would see it fail.
type Protection string

// The protections of the gateway.
const (
	ProtectAddresses        Protection = "addresses"         // a connection needs a rule for its address
	ProtectChanges          Protection = "changes"           // a changed ruleset is in force at once
	ProtectHosts            Protection = "hosts"             // each HTTP request is for the host that was allowed
	ProtectInput            Protection = "input"             // the gateway's own ports are closed
	ProtectNames            Protection = "names"             // a connection needs a rule for its name
	ProtectOpenings         Protection = "openings"          // a connection begins as TLS or HTTP
	ProtectPrivateAddresses Protection = "private addresses" // a name leads to the internet alone
	ProtectRedirects        Protection = "redirects"         // nothing is forwarded but through the proxy
	ProtectServerNames      Protection = "server names"      // TLS asks for the name that was allowed
	ProtectSources          Protection = "sources"           // a packet has the address of its wire
	ProtectStrictECH        Protection = "strict ECH"        // an Encrypted Client Hello is refused
	ProtectSyntheticDNS     Protection = "synthetic DNS"     // no question leaves the gateway
	ProtectWireRenewal      Protection = "renewal of wires"  // nobody gets a wire that another one had
)

// Protections are all of them.
var Protections = []Protection{
	ProtectAddresses, ProtectChanges, ProtectHosts, ProtectInput, ProtectNames, ProtectOpenings, ProtectPrivateAddresses,
	ProtectRedirects, ProtectServerNames, ProtectSources, ProtectStrictECH, ProtectSyntheticDNS, ProtectWireRenewal,
}

// WeakFile is where, in the gateway's instance, such a program reads which protections are off, one a line.
const WeakFile = "/var/lib/pixels/weak"
