// Package egress says what a sandbox may reach: rules, the presets that bundle them, and the policy that a sandbox has of
// them. It is pure: it opens no socket and knows no backend. The program that enforces a policy is in egress/gateway.
package egress

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"pixels/internal/fault"
)

// A Rule lets connections out: to a domain, to all names below one, or to addresses; on some ports.
// Its text form is what ParseRule reads and String writes.
type Rule struct {
	// Domain is in the form that DNS has on the wire: ASCII, lower case, no dot at its end. Empty in a rule for addresses.
	Domain string
	// Below tells that the rule is for all names below Domain, at any depth, and not for Domain itself.
	Below bool
	// CIDR is set in a rule for addresses, which names what no domain rule reaches: private networks.
	CIDR netip.Prefix
	// Ports are sorted, apart from each other, and never empty.
	Ports []Ports
}

// Ports is a range of TCP ports, both ends in it.
type Ports struct{ First, Last uint16 }

// Web is what a rule without ports stands for: HTTP and HTTPS.
var Web = []Ports{{80, 80}, {443, 443}}

// ErrRule is what every error of a rule's text is.
var ErrRule = errors.New("not a rule")

// mapping is how a name in any script becomes ASCII. What is left of it is checked letter by letter after IDNA did its mapping,
// for names with an underscore exist and IDNA's own strict check refuses them.
var mapping = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false), idna.BidiRule())

// longestRule bounds the text of a rule, in bytes: what IDNA does with a name takes time by the square of its length.
const longestRule = 1000

// ParseRule reads a rule: `example.com`, `*.example.com` (all names below, not example.com itself) or `10.1.2.0/24`, each
// with an optional `:PORT`, `:FIRST-LAST`, a list of those with commas, or `:*`. Without ports it is for 80 and 443.
// Names are taken in any case, with a dot at their end, and in any script. The error says what to write instead.
func ParseRule(text string) (Rule, error) {
	if len(text) > longestRule {
		return Rule{}, fmt.Errorf("%w: %q... is longer than %d bytes", ErrRule, text[:20], longestRule)
	}
	host, ports, err := cutPorts(strings.TrimSpace(text))
	if err != nil {
		return Rule{}, fmt.Errorf("%w: %q: %w", ErrRule, text, err)
	}
	rule := Rule{Ports: ports}
	if strings.Contains(host, "/") {
		rule.CIDR, err = parseCIDR(host)
	} else {
		rule.Domain, rule.Below, err = parseDomain(host)
	}
	if err != nil {
		return Rule{}, fmt.Errorf("%w: %q: %w", ErrRule, text, err)
	}
	return rule, nil
}

// ParseDomainRule reads a rule as ParseRule does, and refuses one for addresses: those are for a human to make.
func ParseDomainRule(text string) (Rule, error) {
	rule, err := ParseRule(text)
	if err == nil && rule.Domain == "" {
		return Rule{}, fault.With(fmt.Errorf("%w: %q: a range of addresses can only be allowed by a human; name a domain", ErrRule, text), fault.Hint{Action: fault.AllowByHuman, Value: rule.String()})
	}
	return rule, err
}

func cutPorts(text string) (string, []Ports, error) {
	if strings.Contains(text, "://") {
		return "", nil, errors.New("that is a URL; write its host alone, such as example.com or example.com:8443")
	}
	if strings.Count(text, ":") > 1 && !strings.Contains(text, ",") {
		return "", nil, errors.New("sandboxes have IPv4 only; write a domain, or an IPv4 range such as 10.1.2.0/24")
	}
	host, list, given := strings.Cut(text, ":")
	if !given {
		return host, Web, nil
	}
	ports, err := parsePorts(list)
	return host, ports, err
}

func parsePorts(list string) ([]Ports, error) {
	if list == "*" {
		return []Ports{{1, 65535}}, nil
	}
	var all []Ports
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from == 0 || from > to {
			return nil, fmt.Errorf("%q is no port; write a number from 1 to 65535, a range such as 8000-8010, or *", part)
		}
		all = append(all, Ports{uint16(from), uint16(to)})
	}
	return joined(all), nil
}

// joined sorts ranges and joins those that touch, so that one set of ports has one form.
func joined(all []Ports) []Ports {
	slices.SortFunc(all, func(a, b Ports) int { return cmp.Compare(a.First, b.First) })
	out := all[:1]
	for _, next := range all[1:] {
		last := &out[len(out)-1]
		if int(next.First) <= int(last.Last)+1 {
			last.Last = max(last.Last, next.Last)
		} else {
			out = append(out, next)
		}
	}
	return out
}

// shortestPrefix bounds what one rule for addresses may open; who wants more wants mode unrestricted.
const shortestPrefix = 8

func parseCIDR(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, errors.New("a range of addresses looks like 10.1.2.0/24")
	case !prefix.Addr().Is4():
		return netip.Prefix{}, errors.New("sandboxes have IPv4 only")
	case prefix.Bits() < shortestPrefix:
		return netip.Prefix{}, fmt.Errorf("wider than /%d; for everything there is the mode unrestricted", shortestPrefix)
	case prefix.Masked() != prefix:
		return netip.Prefix{}, fmt.Errorf("has bits behind its mask; write %s", prefix.Masked())
	}
	return prefix, nil
}

func parseDomain(text string) (domain string, below bool, err error) {
	if _, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return "", false, fmt.Errorf("is an address; domains are allowed by name, and addresses by a human with a range such as %s/32", text)
	}
	rest, below := strings.CutPrefix(text, "*.")
	if strings.Contains(rest, "*") {
		return "", false, errors.New("* may only stand for all names below a domain, as in *.example.com")
	}
	if domain, err = Name(rest); err != nil {
		return "", false, err
	}
	if !strings.Contains(domain, ".") && !below {
		return "", false, errors.New("is no full domain; write it as in example.com")
	}
	if suffix, _ := publicsuffix.PublicSuffix(domain); below && suffix == domain {
		return "", false, fmt.Errorf("anyone can have a name below %s; name the domain itself, as in *.example.%s", domain, domain)
	}
	return domain, below, nil
}

// Name brings a host name into the form that rules are compared in: ASCII, lower case, no dot at its end.
func Name(text string) (string, error) {
	plain := strings.TrimSuffix(text, ".")
	name, err := mapping.ToASCII(plain)
	if again, err2 := mapping.ToASCII(name); err != nil || err2 != nil || again != name { // what IDNA can't read back is no name
		return "", errors.New("is no domain name")
	}
	if name == "" || len(name) > 253 {
		return "", errors.New("a domain name has 1 to 253 letters")
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return "", fmt.Errorf("is no domain name: %q can't be a part of one", label)
		}
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return "", errors.New("is no domain name: its last part is a number")
	}
	return name, nil
}

func isLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	return strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// Covers tells whether the rule lets a connection to port of a name out; name is in the form that Name gives.
func (r Rule) Covers(name string, port uint16) bool {
	return r.CoversName(name) && r.coversPort(port)
}

// CoversName tells whether the rule is for a name, on any port.
func (r Rule) CoversName(name string) bool {
	if r.Domain == "" {
		return false
	}
	if r.Below {
		below, ok := strings.CutSuffix(name, r.Domain)
		return ok && len(below) > 1 && below[len(below)-1] == '.'
	}
	return name == r.Domain
}

// CoversAddress tells whether the rule is for addresses and lets a connection to port of addr out.
func (r Rule) CoversAddress(addr netip.Addr, port uint16) bool {
	return r.CIDR.IsValid() && r.CIDR.Contains(addr) && r.coversPort(port)
}

func (r Rule) coversPort(port uint16) bool {
	return slices.ContainsFunc(r.Ports, func(p Ports) bool { return p.First <= port && port <= p.Last })
}

// Equal tells whether two rules are for the same.
func (r Rule) Equal(other Rule) bool {
	return r.Domain == other.Domain && r.Below == other.Below && r.CIDR == other.CIDR && slices.Equal(r.Ports, other.Ports)
}

// String is the rule's text; ParseRule reads the same rule from it.
func (r Rule) String() string {
	host := r.Domain
	switch {
	case r.CIDR.IsValid():
		host = r.CIDR.String()
	case r.Below:
		host = "*." + host
	}
	if slices.Equal(r.Ports, Web) {
		return host
	}
	list := make([]string, len(r.Ports))
	for i, p := range r.Ports {
		switch {
		case p == Ports{1, 65535}:
			list[i] = "*"
		case p.First == p.Last:
			list[i] = strconv.Itoa(int(p.First))
		default:
			list[i] = fmt.Sprintf("%d-%d", p.First, p.Last)
		}
	}
	return host + ":" + strings.Join(list, ",")
}

// Ask is the shortest rule that allows a connection to a port of a host.
func Ask(host string, port uint16) string {
	if (Rule{Ports: Web}).coversPort(port) {
		return host
	}
	return fmt.Sprintf("%s:%d", host, port)
}

// MarshalText writes the rule as String does.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the rule as ParseRule does.
func (r *Rule) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRule(string(text))
	return err
}
