package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Mode says how far a sandbox may reach at all.
type Mode string

// The modes, from closed to open.
const (
	None         Mode = "none"         // no network
	Agent        Mode = "agent"        // what the preset `agent` names, and the sandbox's own rules
	Allowlist    Mode = "allowlist"    // the sandbox's own rules alone
	Unrestricted Mode = "unrestricted" // everything but other sandboxes
)

// Modes are all modes, from closed to open.
var Modes = []Mode{None, Agent, Allowlist, Unrestricted}

// ErrMode is the error of an unknown mode.
var ErrMode = errors.New("unknown egress mode")

// Check returns an error that names the modes when m is none of them.
func (m Mode) Check() error {
	if !slices.Contains(Modes, m) {
		return fmt.Errorf("%w %q: use one of %v", ErrMode, string(m), Modes)
	}
	return nil
}

// Policy is what the gateway enforces for one sandbox.
type Policy struct {
	Mode  Mode    `json:"mode"`
	Rules []Grant `json:"rules,omitempty"`
}

// For returns the policy of a sandbox: its mode, the preset's rules where the mode has one, and its own that have not ended.
// A sandbox that may reach all or nothing has no rules in force.
func (p Presets) For(mode Mode, own []Grant) Policy {
	switch mode {
	case Agent:
		return Policy{Mode: mode, Rules: slices.Concat(p.Rules(string(Agent)), Lasting(own))}
	case Allowlist:
		return Policy{Mode: mode, Rules: Lasting(own)}
	}
	return Policy{Mode: mode}
}

// Allows tells whether a connection to port of a name may leave, and by which rule; name is in the form that Name gives.
func (p Policy) Allows(name string, port uint16) (Grant, bool) {
	return p.find(func(r Rule) bool { return r.Covers(name, port) })
}

// AllowsAddress tells whether a connection to an address that has no name for this sandbox may leave: only a rule for
// addresses lets it.
func (p Policy) AllowsAddress(addr netip.Addr, port uint16) (Grant, bool) {
	return p.find(func(r Rule) bool { return r.CoversAddress(addr, port) })
}

// DeniesAddress tells whether a rule denies connections to an address: also to a name that leads there.
func (p Policy) DeniesAddress(addr netip.Addr, port uint16) bool {
	now := time.Now()
	return slices.ContainsFunc(p.Rules, func(g Grant) bool { return g.Deny && !g.over(now) && g.Rule.CoversAddress(addr, port) })
}

func (p Policy) find(covers func(Rule) bool) (by Grant, allowed bool) {
	switch p.Mode {
	case Unrestricted:
		return Grant{From: "mode unrestricted"}, true
	case Agent, Allowlist:
		now := time.Now()
		for _, g := range p.Rules {
			switch {
			case g.over(now) || g.Spent || !covers(g.Rule):
			case g.Deny:
				return Grant{}, false
			case !allowed || by.Once != "" && g.Once == "": // what lasts goes before what is used up by it
				by, allowed = g, true
			}
		}
	}
	return by, allowed
}

// Keeps tells whether a connection to port of a name that a grant for one connection let out may go on.
func (p Policy) Keeps(once, name string, port uint16) bool {
	now := time.Now()
	granted := false
	for _, g := range p.Rules {
		switch {
		case !g.Rule.Covers(name, port):
		case g.Deny:
			return false
		case g.Once == once && !g.over(now):
			granted = true
		}
	}
	return granted
}

// Spend returns the policy with a grant for one connection used up.
func (p Policy) Spend(once string) Policy {
	p.Rules = slices.Clone(p.Rules)
	for i := range p.Rules {
		if p.Rules[i].Once == once {
			p.Rules[i].Spent = true
		}
	}
	return p
}

// Ends returns when the next of the rules ends after now; the zero time when none does.
func (p Policy) Ends(now time.Time) (next time.Time) {
	for _, g := range p.Rules {
		if now.Before(g.Until) && (next.IsZero() || g.Until.Before(next)) {
			next = g.Until
		}
	}
	return next
}

// Both returns a policy that allows what p and next have in common, as far as they have the same rules.
func (p Policy) Both(next Policy) Policy {
	if slices.Index(Modes, next.Mode) > slices.Index(Modes, p.Mode) {
		next, p = p, next
	}
	if p.Mode == Unrestricted {
		return next
	}
	both := Policy{Mode: next.Mode}
	for _, g := range next.Rules {
		if g.Deny || slices.ContainsFunc(p.Rules, func(o Grant) bool { return !o.Deny && o.Rule.Equal(g.Rule) && o.Once == g.Once && o.lasts(g) }) {
			both.Rules = append(both.Rules, g)
		}
	}
	for _, g := range p.Rules {
		if g.Deny {
			both.Rules = append(both.Rules, g)
		}
	}
	return both
}
