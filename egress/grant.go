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
	// Deny makes it a rule for what may not leave. A newer rule that is for the same, or for less, beats it while it lasts,
	// unless it is of lower rank.
	Deny bool `json:"deny,omitempty"`
	// At is when it was given. Of the rules of one sandbox each is newer than those before it.
	At time.Time `json:"at,omitzero"`
	// Alone makes it one that no copy of its sandbox inherits.
	Alone bool `json:"alone,omitempty"`
	// Until is when it ends; the zero time is never. Connections that it let out are cut then.
	Until time.Time `json:"until,omitzero"`
	// Once names a grant for one connection, which a gateway alone keeps, with the wire it was given for; Spent tells that
	// there was one.
	Once  string `json:"once,omitempty"`
	Spent bool   `json:"spent,omitempty"`
}

// Human begins what a rule is from that a human gave or took, and FromNever is what it is from where it is one of the policy's
// domains that are never granted.
const (
	Human     = "human, "
	FromNever = Human + "policy, egress.never"
)

// rank is whose word counts more: an agent's or that of what an agent may have unasked, a human's, the policy's.
func (g Grant) rank() int {
	switch {
	case g.From == FromNever:
		return 2
	case strings.HasPrefix(g.From, Human):
		return 1
	}
	return 0
}

// ByHuman tells whether a human gave or took it.
func (g Grant) ByHuman() bool { return g.rank() > 0 }

// beats tells whether a grant counts although there is a denial.
func (g Grant) beats(denial Grant) bool {
	return g.At.After(denial.At) && g.rank() >= denial.rank() && g.Rule.Within(denial.Rule)
}

// Inherited returns those of a sandbox's own rules that a copy of it has, too.
func Inherited(own []Grant) []Grant {
	return slices.DeleteFunc(slices.Clone(own), func(g Grant) bool { return g.Alone || g.Once != "" })
}

// Standing returns the denials among rules that keep a part of r from being reached, whatever grants say.
func Standing(rules []Grant, r Rule) (out []Grant) {
	now := time.Now()
	for _, d := range rules {
		if d.Deny && d.Rule.Overlaps(r) && !slices.ContainsFunc(rules, func(g Grant) bool {
			return !g.Deny && !g.over(now) && g.Once == "" && g.beats(d) && r.Within(g.Rule)
		}) {
			out = append(out, d)
		}
	}
	return out
}

// After is the time of a rule that is given now, and is newer than all that a sandbox has.
func After(own []Grant) time.Time {
	at := time.Now().UTC()
	for _, g := range own {
		if !g.At.Before(at) { // by a clock that went back since
			at = g.At.Add(1)
		}
	}
	return at
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
	// ErrStillDenied means that what is to be allowed was denied by somebody whose word counts more.
	ErrStillDenied = errors.New("still denied")
)

// Allow returns own, the rules of a sandbox, with rules added that are not there yet, as as has it but for Rule and At. Those
// that have ended go. No denial does: the new rules beat older ones of the same and of more, while they last, and Standing
// has those that are for less. ErrStillDenied is for what one of higher rank denies. The rules that were there keep who gave
// them, unless they end sooner.
func Allow(own []Grant, as Grant, rules ...Rule) ([]Grant, error) {
	out := Lasting(own)
	for _, r := range rules {
		as.Rule, as.At = r, After(out)
		for _, g := range out {
			if g.Deny && r.Within(g.Rule) && !as.beats(g) {
				return nil, fmt.Errorf("%w: %s was denied (by %s)", ErrStillDenied, g.Rule, g.From)
			}
		}
		if slices.ContainsFunc(out, func(g Grant) bool { return g.serves(as) && len(denied(out, g, r)) == 0 }) {
			continue
		}
		out = slices.DeleteFunc(out, func(g Grant) bool { return !g.Deny && as.serves(g) })
		out = append(out, as)
	}
	return out, checkCount(out)
}

// serves tells whether a grant gives all that another would.
func (g Grant) serves(other Grant) bool {
	return !g.Deny && g.Once == other.Once && other.Rule.Within(g.Rule) && g.lasts(other) && g.rank() >= other.rank() && (!g.Alone || other.Alone)
}

// denied are the denials that keep a grant from giving a part of r.
func denied(rules []Grant, g Grant, r Rule) (out []Grant) {
	for _, d := range rules {
		if d.Deny && d.Rule.Overlaps(r) && !g.beats(d) {
			out = append(out, d)
		}
	}
	return out
}

// Deny returns own, the rules of a sandbox with a mode, so that nothing of rules is allowed. What of rules was not allowed
// before is returned as missing. With stands, rules are kept that say so even where nothing else allows any of it: so
// that it isn't given again unasked.
func (p Presets) Deny(mode Mode, own []Grant, from string, stands bool, rules ...Rule) (left []Grant, missing []Rule, err error) {
	left = Lasting(own)
	for _, r := range rules {
		before := len(left)
		left = slices.DeleteFunc(left, func(g Grant) bool { return !g.Deny && g.Rule.Within(r) })
		changed := len(left) != before
		as := Grant{Rule: r, From: from, Deny: true, At: After(left)}
		in := p.For(mode, left).Rules
		still := slices.ContainsFunc(in, func(g Grant) bool { return !g.Deny && g.Rule.Overlaps(r) })
		// One that is there already stands for it, unless something newer may beat it.
		there := slices.ContainsFunc(left, func(d Grant) bool {
			return d.Deny && r.Within(d.Rule) && d.rank() >= as.rank() && !slices.ContainsFunc(left, func(g Grant) bool { return !g.Deny && g.beats(d) && g.Rule.Overlaps(r) })
		})
		if (still || stands) && !there {
			left = slices.DeleteFunc(left, func(g Grant) bool { return g.Deny && g.Rule.Within(r) && g.rank() <= as.rank() })
			left = append(left, as)
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

// Changes says how what a sandbox may reach was changed, from one mode and rules of its own to others.
func Changes(from, to Mode, own, then []Grant) string {
	var what []string
	if from != to {
		what = append(what, fmt.Sprintf("%s to %s", from, to))
	}
	has := func(list []Grant, g Grant) bool {
		return slices.ContainsFunc(list, func(o Grant) bool {
			return o.Rule.Equal(g.Rule) && o.From == g.From && o.Deny == g.Deny && o.Alone == g.Alone && o.Until.Equal(g.Until)
		})
	}
	say := func(sign string, list, other []Grant) {
		for _, g := range list {
			switch {
			case has(other, g):
			case g.Deny:
				what = append(what, sign+"denial of "+g.Rule.String())
			case g.Until.IsZero():
				what = append(what, sign+g.Rule.String())
			default:
				what = append(what, sign+g.Rule.String()+" until "+g.Until.UTC().Format(time.RFC3339))
			}
		}
	}
	say("+", then, own)
	say("-", own, then)
	if len(what) == 0 {
		return "nothing"
	}
	return strings.Join(what, ", ")
}
