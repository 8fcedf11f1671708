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
	in := slices.DeleteFunc(slices.Clone(p.Rules), func(g Grant) bool { return g.over(now) || !g.Rule.CoversAddress(addr, port) })
	return slices.ContainsFunc(in, func(d Grant) bool {
		return d.Deny && !slices.ContainsFunc(in, func(g Grant) bool { return !g.Deny && g.beats(d) })
	})
}

// Decides returns the rule that decides about a connection to port of a name, or the denial; an empty one where none is for it.
func (p Policy) Decides(name string, port uint16) (by Grant, allowed bool) {
	if by, allowed = p.Allows(name, port); allowed || p.Mode != Agent && p.Mode != Allowlist {
		return by, allowed
	}
	for _, g := range p.Rules {
		if g.Deny && g.Rule.Covers(name, port) && (by.From == "" || g.rank() >= by.rank()) {
			by = g
		}
	}
	return by, false
}

func (p Policy) find(covers func(Rule) bool) (by Grant, allowed bool) {
	switch p.Mode {
	case Unrestricted:
		return Grant{From: "mode unrestricted"}, true
	case Agent, Allowlist:
		for _, g := range p.covering(covers) {
			// What lasts goes before what is used up by it.
			if !g.Spent && (!allowed || by.Once != "" && g.Once == "") {
				by, allowed = g, true
			}
		}
	}
	return by, allowed
}

// covering are the grants for a connection that no denial is against.
func (p Policy) covering(covers func(Rule) bool) (out []Grant) {
	now := time.Now()
	var denials []Grant
	for _, g := range p.Rules {
		switch {
		case g.over(now) || !covers(g.Rule):
		case g.Deny:
			denials = append(denials, g)
		default:
			out = append(out, g)
		}
	}
	return slices.DeleteFunc(out, func(g Grant) bool {
		return slices.ContainsFunc(denials, func(d Grant) bool { return !g.beats(d) })
	})
}

// Keeps tells whether a connection to port of a name that a grant for one connection let out may go on.
func (p Policy) Keeps(once, name string, port uint16) bool {
	return slices.ContainsFunc(p.covering(func(r Rule) bool { return r.Covers(name, port) }), func(g Grant) bool { return g.Once == once })
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
