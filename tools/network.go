package tools

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pixels/egress"
	"pixels/sandbox"
)

type allowInput struct {
	Name    string   `json:"name"`
	Domains []string `json:"domains" jsonschema:"each as example.com, *.example.com (all below, not example.com) or example.com:8443; ports 80 and 443 when left out"`
	Reason  string   `json:"reason" jsonschema:"what for, in a few words; kept with the rule"`
}

type denyInput struct {
	Name    string   `json:"name"`
	Domains []string `json:"domains" jsonschema:"as in allow_domain; all ports when left out"`
}

type egressInput struct {
	Name string      `json:"name"`
	Mode egress.Mode `json:"mode,omitempty" jsonschema:"sets it; as egress in create_sandbox"`
}

type egressChange struct {
	Enforced  bool     `json:"enforced"`
	Cut       int      `json:"cut" jsonschema:"open connections that were ended"`
	Unchanged []string `json:"unchanged,omitempty" jsonschema:"were not allowed before"`
}

type egressOutput struct {
	Mode     egress.Mode    `json:"mode"`
	Enforced bool           `json:"enforced"`
	Why      string         `json:"why,omitempty" jsonschema:"why it is not enforced"`
	Rules    []egressRule   `json:"rules"`
	Denials  []egressDenial `json:"denials" jsonschema:"the latest"`
	Cut      int            `json:"cut,omitempty"`
}

type egressRule struct {
	Rule string `json:"rule"`
	From string `json:"from"`
	Deny bool   `json:"deny,omitempty"`
}

type egressDenial struct {
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	Count  int       `json:"count"`
	At     time.Time `json:"at"`
}

// maxReason bounds an agent's reason, in bytes.
const maxReason = 300

var allowDomain = define(Tool{
	Name: "allow_domain", Title: "Allow domains", Idempotent: true,
	Description: "Lets a sandbox reach domains, at once and without a restart. For egress agent and allowlist. exec says when a connection was denied.",
}, func(ctx context.Context, s Session, in allowInput) (egressChange, Result, error) {
	reason := strings.Join(strings.Fields(in.Reason), " ")
	if reason == "" || len(reason) > maxReason {
		return egressChange{}, Result{}, fmt.Errorf("the argument \"reason\" has %d bytes: say in up to %d what the domains are for", len(reason), maxReason)
	}
	change, err := s.Manager.Allow(ctx, s.Owner, in.Name, in.Domains, "allow_domain: "+reason, false)
	if err != nil {
		return egressChange{}, Result{}, err
	}
	return changeOf(change), Result{Text: fmt.Sprintf("%s may reach %s now%s", in.Name, strings.Join(in.Domains, ", "), notEnforced(change.Egress))}, nil
})

var denyDomain = define(Tool{
	Name: "deny_domain", Title: "Deny domains", Destructive: true, Idempotent: true,
	Description: "Takes domains from what a sandbox may reach, those of its mode too, and cuts open connections there.",
}, func(ctx context.Context, s Session, in denyInput) (egressChange, Result, error) {
	change, err := s.Manager.Deny(ctx, s.Owner, in.Name, in.Domains, "deny_domain")
	if err != nil {
		return egressChange{}, Result{}, err
	}
	out := changeOf(change)
	text := fmt.Sprintf("%s can't reach %s now; %s cut%s", in.Name, strings.Join(in.Domains, ", "), count(change.Cut, "connection", "connections"), notEnforced(change.Egress))
	if len(out.Unchanged) > 0 {
		text += "; not allowed before: " + strings.Join(out.Unchanged, ", ")
	}
	return out, Result{Text: text}, nil
})

var egressTool = define(Tool{
	Name: "egress", Title: "Show or set egress", Idempotent: true,
	Description: "Shows what a sandbox may reach: mode, rules, latest denials, and whether the host enforces it. With mode sets that first, at once.",
}, func(ctx context.Context, s Session, in egressInput) (egressOutput, Result, error) {
	var change sandbox.EgressChange
	var err error
	if in.Mode != "" {
		change, err = s.Manager.SetEgress(ctx, s.Owner, in.Name, in.Mode)
	} else {
		change.Egress, err = s.Manager.Egress(ctx, s.Owner, in.Name)
	}
	if err != nil {
		return egressOutput{}, Result{}, err
	}
	out := EgressOf(change)
	return out, Result{Text: EgressText(in.Name, change)}, nil
})

// EgressOf is what a sandbox may reach, as the tool egress answers it.
func EgressOf(c sandbox.EgressChange) egressOutput {
	out := egressOutput{Mode: c.Mode, Enforced: c.Enforced, Why: c.Why, Rules: []egressRule{}, Denials: []egressDenial{}, Cut: c.Cut}
	for _, g := range c.Rules {
		out.Rules = append(out.Rules, egressRule{g.Rule.String(), g.From, g.Deny})
	}
	for _, d := range c.Denials {
		out.Denials = append(out.Denials, egressDenial{d.Where(), d.Reason, d.Count, d.At})
	}
	return out
}

func changeOf(c sandbox.EgressChange) egressChange {
	out := egressChange{Enforced: c.Enforced, Cut: c.Cut}
	for _, r := range c.Missing {
		out.Unchanged = append(out.Unchanged, r.String())
	}
	return out
}

func notEnforced(e sandbox.Egress) string {
	if e.Enforced {
		return ""
	}
	return "; NOT ENFORCED: " + e.Why
}

// shownDenials is how many of the latest are shown as text.
const shownDenials = 10

// EgressText shows what a sandbox may reach, to agents and people. Rules of a preset are counted by whose they are.
func EgressText(name string, c sandbox.EgressChange) string {
	lines := []string{fmt.Sprintf("%s: egress %s, enforced", name, c.Mode)}
	if !c.Enforced {
		lines[0] = fmt.Sprintf("%s: egress %s%s", name, c.Mode, notEnforced(c.Egress))
	}
	var froms []string
	byFrom := map[string][]string{}
	for _, g := range c.Rules {
		from := g.From
		if g.Deny {
			from = "denied by " + from
		}
		if byFrom[from] == nil {
			froms = append(froms, from)
		}
		byFrom[from] = append(byFrom[from], g.Rule.String())
	}
	for _, from := range froms {
		lines = append(lines, fmt.Sprintf("  %s   (%s)", strings.Join(byFrom[from], " "), from))
	}
	if c.Cut > 0 {
		lines = append(lines, count(c.Cut, "connection", "connections")+" cut")
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
		lines = append(lines, fmt.Sprintf("  %s %s, %s: %s", clock(d.At), d.Where(), times(d.Count), d.Reason))
	}
	return strings.Join(lines, "\n")
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
