package egress

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Grant is a rule that a sandbox has, and who gave it.
type Grant struct {
	Rule Rule `json:"rule"`
	// From says where the rule came from, in words for people: "create_sandbox", "preset agent: npm registry (npm, Inc.)".
	From string `json:"from"`
	// Deny makes it a rule for what may not leave, whatever else allows it.
	Deny bool `json:"deny,omitempty"`
	// Until is when it ends; the zero time is never. Connections that it let out are cut then.
	Until time.Time `json:"until,omitzero"`
	// Once names a grant for one connection; Spent tells that there was one.
	Once  string `json:"once,omitempty"`
	Spent bool   `json:"spent,omitempty"`
}

// over tells whether a grant has ended.
func (g Grant) over(now time.Time) bool { return !g.Until.IsZero() && !now.Before(g.Until) }

// lasts tells whether a grant goes on for as long as another.
func (g Grant) lasts(other Grant) bool {
	return g.Until.IsZero() || !other.Until.IsZero() && !g.Until.Before(other.Until)
}

// Lasting returns the rules of own that have not ended.
func Lasting(own []Grant) []Grant {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(own), func(g Grant) bool { return g.over(now) })
}

// maxRules bounds a sandbox's own rules: they are looked through for every connection, and kept in its instance's keys.
const maxRules = 500

// Errors of Allow and Deny.
var (
	// ErrTooMany means that a sandbox would have more rules than it may.
	ErrTooMany = errors.New("too many rules")
	// ErrStillDenied means that a denial stands that is for more than what is to be allowed.
	ErrStillDenied = errors.New("still denied")
)

// Allow returns own, the rules of a sandbox, with rules added that are not there yet, as as has it but for their Rule. Those
// that have ended go, and so do denials of the same; a wider one that stands is ErrStillDenied. The rules that were there
// keep who gave them, unless they end sooner.
func Allow(own []Grant, as Grant, rules ...Rule) ([]Grant, error) {
	out := Lasting(own)
	for _, r := range rules {
		as.Rule = r
		out = slices.DeleteFunc(out, func(g Grant) bool { return g.Deny && g.Rule.Within(r) })
		for _, g := range out {
			if g.Deny && g.Rule.Overlaps(r) {
				return nil, fmt.Errorf("%w: %s was denied (by %s); allow all of %s, or leave it", ErrStillDenied, g.Rule, g.From, g.Rule)
			}
		}
		if !slices.ContainsFunc(out, func(g Grant) bool { return !g.Deny && g.Once == "" && r.Within(g.Rule) && g.lasts(as) }) {
			out = slices.DeleteFunc(out, func(g Grant) bool { return !g.Deny && g.Once == as.Once && g.Rule.Within(r) && as.lasts(g) })
			out = append(out, as)
		}
	}
	return out, checkCount(out)
}

// Deny returns own, the rules of a sandbox with a mode, so that nothing of rules is allowed. What of rules was not allowed
// before is returned as missing. With stands, rules are kept that say so even where nothing else allows any of it: so
// that it isn't given again unasked.
func (p Presets) Deny(mode Mode, own []Grant, from string, stands bool, rules ...Rule) (left []Grant, missing []Rule, err error) {
	left = Lasting(own)
	for _, r := range rules {
		before := len(left)
		left = slices.DeleteFunc(left, func(g Grant) bool { return !g.Deny && g.Rule.Within(r) })
		still := slices.ContainsFunc(p.For(mode, left).Rules, func(g Grant) bool { return !g.Deny && g.Rule.Overlaps(r) })
		changed := len(left) != before
		denied := slices.ContainsFunc(left, func(g Grant) bool { return g.Deny && r.Within(g.Rule) })
		if (still || stands) && !denied {
			left = slices.DeleteFunc(left, func(g Grant) bool { return g.Deny && g.Rule.Within(r) })
			left = append(left, Grant{Rule: r, From: from, Deny: true})
			changed = changed || still
		}
		if !changed {
			missing = append(missing, r)
		}
	}
	return left, missing, checkCount(left)
}

func checkCount(own []Grant) error {
	if len(own) > maxRules {
		return fmt.Errorf("%w: %d, of %d that a sandbox may have; use *.DOMAIN, or take some back", ErrTooMany, len(own), maxRules)
	}
	return nil
}

// ParseDenial reads a rule as ParseRule does, but that without ports it is for all ports.
func ParseDenial(text string) (Rule, error) {
	r, err := ParseRule(text)
	if err == nil && !strings.Contains(text, ":") {
		r.Ports = []Ports{{1, 65535}}
	}
	return r, err
}
