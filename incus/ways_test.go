package incus

import (
	"slices"
	"strings"
	"testing"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fakenet"
	"pixels/sandbox"
)

// way is one way out of a sandbox that must be closed. Try takes it as root inside the sandbox `one`, whose mode is
// allowlist and which may reach allowed.example.com; `two` is another one. It returns what got through, empty when
// nothing did. Without the protection that is named by off, something does.
type way struct {
	id  string
	off gateway.Protection
	try func(t *testing.T, l *lab) string
}

// Protections that are none of the gateway's: a test takes each off by what it makes of the sandbox that tries.
const (
	onAWire        gateway.Protection = "a wire instead of a bridge"
	anotherWire    gateway.Protection = "another wire at the start"
	guestAPI       gateway.Protection = "no guest API"
	resourceLimits gateway.Protection = "limits"
)

const site = fakenet.Site

var ways = []way{
	{"flush-nft", gateway.ProtectNames, func(t *testing.T, l *lab) string {
		l.run(t, "one", "sh", "-c", "nft flush ruleset; iptables -F; ip rule flush; ip rule add table main; ip route replace default via 169.254.1.1 dev eth0 onlink; true")
		return got(l.try(t, "one", "tcp", deniedName+":443", "-sni", deniedName), "tls done") + l.seen()
	}},
	{"direct-ip", gateway.ProtectAddresses, func(t *testing.T, l *lab) string {
		l.try(t, "one", "tcp", site+":80", "-host", allowedName)
		e, err := l.Egress(t.Context(), l.boxes["one"])
		if err != nil || len(e.Denials) == 0 || e.Denials[len(e.Denials)-1].Address != site {
			return "it is not on record"
		}
		return l.seen()
	}},
	{"direct-ip-sni", gateway.ProtectAddresses, func(t *testing.T, l *lab) string {
		return got(l.try(t, "one", "tcp", site+":443", "-sni", allowedName), "tls done") + l.seen()
	}},
	{"shared-cdn", gateway.ProtectNames, func(t *testing.T, l *lab) string {
		l.try(t, "one", "tcp", allowedName+":443", "-sni", allowedName, "-host", allowedName) // its address is known now
		l.forget()
		return got(l.try(t, "one", "tcp", deniedName+":443", "-sni", deniedName), "tls done") + l.seen()
	}},
	{"sni-spoof", gateway.ProtectServerNames, func(t *testing.T, l *lab) string {
		return got(l.try(t, "one", "tcp", allowedName+":443", "-sni", deniedName), "tls done") + l.seen("dns "+allowedName)
	}},
	{"no-sni", gateway.ProtectServerNames, func(t *testing.T, l *lab) string {
		return got(l.try(t, "one", "tcp", allowedName+":443", "-sni", "none"), "tls done") + l.seen("dns "+allowedName)
	}},
	{"sni-fragment", gateway.ProtectServerNames, func(t *testing.T, l *lab) string {
		if good := l.try(t, "one", "tcp", allowedName+":443", "-sni", allowedName, "-host", allowedName, "-pieces"); !strings.Contains(good, "you asked") {
			t.Errorf("the allowed name in pieces: %s", good)
		}
		l.forget()
		return got(l.try(t, "one", "tcp", allowedName+":443", "-sni", deniedName, "-pieces"), "tls done") + l.seen("dns "+allowedName)
	}},
	{"non-tls-443", gateway.ProtectOpenings, func(t *testing.T, l *lab) string {
		l.try(t, "one", "tcp", allowedName+":443", "-say", `SSH-2.0-tunnel\r\n`)
		return l.seen()
	}},
	{"host-spoof", gateway.ProtectHosts, func(t *testing.T, l *lab) string {
		l.try(t, "one", "tcp", allowedName+":80", "-host", deniedName)
		return l.seen("dns " + allowedName)
	}},
	{"keepalive-host", gateway.ProtectHosts, func(t *testing.T, l *lab) string {
		l.try(t, "one", "tcp", allowedName+":80", "-say", `GET /first HTTP/1.1\r\nHost: `+allowedName+`\r\n\r\nGET /second HTTP/1.1\r\nHost: `+deniedName+`\r\nConnection: close\r\n\r\n`)
		return l.seen("dns "+allowedName, "http GET "+allowedName+" /first")
	}},
	{"nested-connect", gateway.ProtectHosts, func(t *testing.T, l *lab) string {
		l.try(t, "one", "tcp", allowedName+":80", "-say", `CONNECT `+deniedName+`:443 HTTP/1.1\r\nHost: `+allowedName+`\r\nConnection: close\r\n\r\n`)
		return l.seen("dns " + allowedName)
	}},
	{"ech-outer", gateway.ProtectStrictECH, func(t *testing.T, l *lab) string {
		l.try(t, "one", "tcp", allowedName+":443", "-sni", "hidden.example.com", "-ech")
		return l.seen("dns " + allowedName)
	}},
	{"quic", gateway.ProtectRedirects, func(t *testing.T, l *lab) string {
		said := l.try(t, "one", "udp", site+":443", "quic")
		through := l.arrived()
		if through == "" && !strings.Contains(said, "refused") && !strings.Contains(said, "unreachable") && !strings.Contains(said, "no route") {
			t.Errorf("a client sees no ICMP error: %s", said)
		}
		return through
	}},
	{"dns-tunnel", gateway.ProtectSyntheticDNS, func(t *testing.T, l *lab) string {
		l.try(t, "one", "names", "50", "evil.example.org")
		return l.seen()
	}},
	{"dns-wildcard", gateway.ProtectSyntheticDNS, func(t *testing.T, l *lab) string {
		l.set(t, "one", egress.Allowlist, "*.example.com", allowedName)
		defer l.set(t, "one", egress.Allowlist, allowedName)
		l.try(t, "one", "names", "1000", "example.com")
		return l.seen()
	}},
	{"dns-elsewhere", gateway.ProtectRedirects, func(t *testing.T, l *lab) string {
		var through string
		for _, network := range []string{"udp4", "tcp4"} {
			for _, server := range []string{fakenet.DNS + ":53", site + ":53"} {
				if said := l.try(t, "one", "dns", server, network, "A", allowedName); strings.Contains(said, site) {
					through += said
				}
			}
		}
		l.try(t, "one", "tcp", site+":853", "-say", "dot")
		return through + got(l.try(t, "one", "tcp", site+":443", "-sni", "dns.example.com"), "tls done") + l.arrived()
	}},
	{"dns-types", gateway.ProtectSyntheticDNS, func(t *testing.T, l *lab) string {
		var through string
		for _, kind := range []string{"TXT", "SVCB", "HTTPS", "AAAA", "ANY"} {
			if said := l.try(t, "one", "dns", "169.254.1.1:53", "udp4", kind, allowedName); !strings.HasPrefix(said, "NOERROR 0 answers") {
				through += kind + ": " + said
			}
		}
		return through + l.seen()
	}},
	{"rebind", gateway.ProtectPrivateAddresses, func(t *testing.T, l *lab) string {
		l.set(t, "one", egress.Allowlist, "*.example.com:*", allowedName)
		defer l.set(t, "one", egress.Allowlist, allowedName)
		l.inet.Address("up0", "10.0.0.1/32") // where the others would lead is not this test's to reach
		through := ""
		for i, address := range []string{"10.0.0.1", l.network.Addr().Next().Next().String(), "169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::a00:1"} {
			name := "rebind" + string(rune('a'+i)) + ".example.com"
			l.inet.Name(name, address)
			said := l.try(t, "one", "tcp", name+":80", "-host", name)
			if !strings.Contains(said, "403") && !strings.Contains(said, "502") {
				through += address + ": " + said
			}
		}
		e, err := l.Egress(t.Context(), l.boxes["one"])
		if err != nil || !slices.ContainsFunc(e.Denials, func(d sandbox.Denial) bool {
			return strings.HasPrefix(d.Domain, "rebind") && strings.Contains(d.Reason, "not on the internet")
		}) {
			through += "it is not denied"
		}
		return through
	}},
	{"icmp-tunnel", gateway.ProtectRedirects, func(t *testing.T, l *lab) string {
		said := got(l.try(t, "one", "ping", site), "echo reply") + got(l.try(t, "one", "ping", "169.254.1.1"), "echo reply") + got(l.try(t, "one", "ping", l.host()), "echo reply")
		return said + l.arrived()
	}},
	{"gateway-ports", gateway.ProtectInput, func(t *testing.T, l *lab) string {
		var through string
		for _, address := range []string{"169.254.1.1:9999", l.gatewayAddress() + ":53000"} {
			if said := l.try(t, "one", "udp", address, "x"); !strings.Contains(said, "refused") && !strings.Contains(said, "unreachable") && !strings.Contains(said, "no route") {
				through += "udp " + address + ": " + said
			}
		}
		for _, box := range []string{"one", "open"} {
			for _, address := range []string{l.gatewayAddress() + ":15001", "169.254.1.1:15001"} {
				said := l.try(t, box, "tcp", address, "-say", `GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
				if strings.HasPrefix(said, "error: EOF") || said == "" || strings.Contains(said, "200 OK") {
					through += box + " tcp " + address + ": " + said
				}
			}
		}
		return through + got(l.try(t, "one", "ping", "169.254.1.1"), "echo reply")
	}},
}
