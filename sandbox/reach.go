package sandbox

import (
	"slices"

	"pixels/egress"
)

// Has tells whether a sandbox may reach all that a rule is for, and by which grant, of several the one that lasts longest.
func (s Sandbox) Has(presets egress.Presets, rule egress.Rule) (by egress.Grant, ok bool) {
	if s.Egress == egress.Unrestricted {
		return by, true
	}
	rules := presets.For(s.Egress, s.Rules).Rules
	if len(egress.Standing(rules, rule)) > 0 {
		return by, false
	}
	for _, g := range rules {
		if !g.Deny && g.Once == "" && rule.Within(g.Rule) && (!ok || g.Until.IsZero() || !by.Until.IsZero() && g.Until.After(by.Until)) {
			by, ok = g, true
		}
	}
	return by, ok
}

// DeniedByHuman tells whether a human took a part of what a rule is for from a sandbox, which no agent may undo.
func (s Sandbox) DeniedByHuman(rule egress.Rule) bool {
	return slices.ContainsFunc(egress.Standing(s.Rules, rule), egress.Grant.ByHuman)
}

// Denied tells whether anything of a rule was taken from a sandbox, by whomever.
func (s Sandbox) Denied(rule egress.Rule) bool {
	for _, g := range s.Rules {
		if g.Deny && g.Rule.Overlaps(rule) {
			return true
		}
	}
	return false
}
