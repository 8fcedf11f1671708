package view

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pixels/egress"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// EgressChange is what a change of what a sandbox may reach did, as JSON.
type EgressChange struct {
	Enforced  bool     `json:"enforced"`
	Cut       int      `json:"cut,omitempty" jsonschema:"open connections that were ended"`
	Unchanged []string `json:"unchanged,omitempty" jsonschema:"were not allowed before"`
}

// Egress is what a sandbox may reach, as JSON. What there is none of is left out.
type Egress struct {
	Mode     egress.Mode    `json:"mode"`
	Enforced bool           `json:"enforced"`
	Why      string         `json:"why,omitempty" jsonschema:"why it is not enforced"`
	Missing  string         `json:"missing,omitempty"`
	Rules    []EgressRule   `json:"rules,omitempty"`
	Requests []string       `json:"requests,omitempty" jsonschema:"open ones"`
	Denials  []EgressDenial `json:"denials,omitempty" jsonschema:"the latest"`
	Cut      int            `json:"cut,omitempty"`
}

// EgressRule is a rule of a sandbox, and who gave it.
type EgressRule struct {
	Rule  string `json:"rule"`
	From  string `json:"from"`
	Deny  bool   `json:"deny,omitempty"`
	Until string `json:"until,omitempty"`
}

// EgressDenial is what a sandbox was refused, of several alike the last.
type EgressDenial struct {
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	Count  int       `json:"count"`
	At     time.Time `json:"at"`
}

// EgressOf is what a sandbox may reach, as the tool egress answers it.
func EgressOf(c manager.EgressChange, to Audience) Egress {
	out := Egress{Mode: c.Mode, Enforced: c.Enforced, Why: NotEnforced(c.Egress, to), Missing: Gap(c.Egress, to), Cut: c.Cut}
	for _, g := range c.Rules {
		rule := EgressRule{Rule: g.Rule.String(), From: g.From, Deny: g.Deny}
		if !g.Until.IsZero() {
			rule.Until = Clock(g.Until)
		}
		out.Rules = append(out.Rules, rule)
	}
	for _, r := range c.Requests {
		out.Requests = append(out.Requests, r.ID+" "+r.Subject)
	}
	for _, d := range c.Denials {
		out.Denials = append(out.Denials, EgressDenial{d.Where(), d.Reason, d.Count, d.At})
	}
	return out
}

// EgressChangeOf is what of a change is shown.
func EgressChangeOf(c manager.EgressChange) EgressChange {
	out := EgressChange{Enforced: c.Enforced, Cut: c.Cut}
	for _, r := range c.Missing {
		out.Unchanged = append(out.Unchanged, r.String())
	}
	return out
}

// Unenforced ends a sentence about an egress that is not enforced; empty when it is.
func Unenforced(e sandbox.Egress, to Audience) string {
	if e.Enforced {
		return ""
	}
	return "; NOT ENFORCED: " + NotEnforced(e, to)
}

// shownDenials is how many of the latest are shown as text.
const shownDenials = 10

// EgressText shows what a sandbox may reach, to agents and people. Rules of a preset are counted by whose they are.
func EgressText(name string, c manager.EgressChange, to Audience) string {
	lines := []string{fmt.Sprintf("%s: egress %s, enforced", name, c.Mode)}
	if !c.Enforced {
		lines[0] = fmt.Sprintf("%s: egress %s%s", name, c.Mode, Unenforced(c.Egress, to))
	}
	if c.Gap != "" {
		lines = append(lines, "not promised here: "+Gap(c.Egress, to))
	}
	var froms []string
	byFrom := map[string][]string{}
	for _, g := range c.Rules {
		from := g.From
		if g.Deny {
			from = "denied by " + from
		}
		if g.Once != "" {
			from += ", for one connection"
			if g.Spent {
				from += ", which there was"
			}
		}
		if !g.Until.IsZero() {
			from += ", until " + Clock(g.Until)
		}
		if byFrom[from] == nil {
			froms = append(froms, from)
		}
		byFrom[from] = append(byFrom[from], g.Rule.String())
	}
	for _, from := range froms {
		lines = append(lines, fmt.Sprintf("  %s   (%s)", strings.Join(byFrom[from], " "), from))
	}
	for _, d := range c.Standing {
		lines = append(lines, "  but not "+StandingDenial(d))
	}
	for _, r := range c.Requests {
		lines = append(lines, "  "+RequestLine(r))
	}
	if c.Cut > 0 {
		lines = append(lines, Count(c.Cut, "connection", "connections")+" cut")
	}
	latest := slices.Clone(c.Denials)
	if len(latest) > shownDenials {
		latest = latest[len(latest)-shownDenials:]
	}
	slices.Reverse(latest)
	if len(latest) > 0 {
		lines = append(lines, "denied lately:")
	}
	for _, d := range latest {
		lines = append(lines, fmt.Sprintf("  %s %s, %s: %s", Clock(d.At), d.Where(), Times(d.Count), d.Reason))
	}
	return strings.Join(lines, "\n")
}

// StandingDenial says that a denial stands against what is allowed.
func StandingDenial(d egress.Grant) string {
	return fmt.Sprintf("%s, which stays denied (by %s)", d.Rule, d.From)
}

// Times says how often.
func Times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
