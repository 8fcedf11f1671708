package tools

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pixels/egress"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

type allowInput struct {
	Name    string   `json:"name"`
	Domains []string `json:"domains" jsonschema:"each as example.com, *.example.com (all below, not example.com) or example.com:8443; ports 80 and 443 when left out"`
	Reason  string   `json:"reason" jsonschema:"what for, in a few words; a human reads it"`
	TTL     string   `json:"ttl,omitempty" jsonschema:"for how long, as 30m, 2h or 7d"`
	Wait    float64  `json:"wait,omitempty" jsonschema:"seconds to wait for a human, up to 40"`
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

type allowOutput struct {
	Granted  []string     `json:"granted" jsonschema:"may be reached now"`
	Requests []requestFor `json:"requests" jsonschema:"what a human must decide about, or has decided"`
	Enforced bool         `json:"enforced"`
}

type requestFor struct {
	ID     string              `json:"id" jsonschema:"give it to wait"`
	Domain string              `json:"domain"`
	State  ledger.RequestState `json:"state" jsonschema:"open, granted, denied, expired, revoked or withdrawn"`
	Answer string              `json:"answer,omitempty" jsonschema:"the human's words"`
	Until  string              `json:"until,omitempty" jsonschema:"end of the grant"`
}

type egressOutput struct {
	Mode     egress.Mode    `json:"mode"`
	Enforced bool           `json:"enforced"`
	Why      string         `json:"why,omitempty" jsonschema:"why it is not enforced"`
	Missing  string         `json:"missing,omitempty"`
	Rules    []egressRule   `json:"rules"`
	Requests []string       `json:"requests,omitempty" jsonschema:"open ones"`
	Denials  []egressDenial `json:"denials" jsonschema:"the latest"`
	Cut      int            `json:"cut,omitempty"`
}

type egressRule struct {
	Rule  string `json:"rule"`
	From  string `json:"from"`
	Deny  bool   `json:"deny,omitempty"`
	Until string `json:"until,omitempty"`
}

type egressDenial struct {
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	Count  int       `json:"count"`
	At     time.Time `json:"at"`
}

var allowDomain = define(Tool{
	Verb: policy.VerbAllowDomain, Title: "Allow domains", Idempotent: true,
	Description: "Asks that a sandbox may reach domains, for egress agent and allowlist. What the policy grants is in reach at once; for the rest a human is asked, " +
		"whose answer is for the sandboxes that asked, unless they say otherwise: requests says what became of it, and wait waits for it. exec says when a connection was denied.",
}, func(ctx context.Context, s Session, in allowInput) (allowOutput, Result, error) {
	reason := strings.Join(strings.Fields(in.Reason), " ")
	if reason == "" || len(reason) > manager.MaxReason {
		return allowOutput{}, Result{}, fmt.Errorf("the argument \"reason\" has %d bytes: say in up to %d what the domains are for", len(reason), manager.MaxReason)
	}
	if !(in.Wait >= 0 && in.Wait <= callLimit.Seconds()) {
		return allowOutput{}, Result{}, fmt.Errorf("the argument \"wait\" is %v; give 0 to %v seconds, and call wait for longer", in.Wait, callLimit.Seconds())
	}
	lasting, err := ttl(in.TTL)
	if err != nil {
		return allowOutput{}, Result{}, err
	}
	got, err := s.Manager.Allow(ctx, s.Caller, manager.AllowRequest{
		Name: in.Name, Domains: in.Domains, Reason: reason, TTL: lasting, Again: s.Human.Again,
	})
	if err != nil {
		return allowOutput{}, Result{}, err
	}
	if got.Requests, err = s.elicit(ctx, got.Requests, time.Duration(in.Wait*float64(time.Second))); err != nil {
		return allowOutput{}, Result{}, err
	}
	out := allowOutput{Granted: []string{}, Requests: []requestFor{}, Enforced: got.Enforced}
	for _, r := range got.Granted {
		out.Granted = append(out.Granted, r.String())
	}
	var lines []string
	for _, r := range got.Requests {
		if r.State == ledger.RequestGranted {
			out.Granted = append(out.Granted, r.Subject)
		}
		out.Requests = append(out.Requests, requestOf(r))
		lines = append(lines, requestText(r))
	}
	switch {
	case len(out.Granted) > 0:
		lines = append([]string{fmt.Sprintf("%s may reach %s now%s", in.Name, strings.Join(out.Granted, ", "), notEnforced(got.Egress, view.Agent))}, lines...)
		for _, d := range got.Standing {
			lines = append(lines, "but not "+standing(d))
		}
	case len(out.Requests) == 0:
		lines = []string{fmt.Sprintf("%s may reach %s already%s", in.Name, strings.Join(in.Domains, ", "), notEnforced(got.Egress, view.Agent))}
	}
	return out, Result{Text: strings.Join(lines, "\n")}, nil
})

func requestOf(r ledger.Request) requestFor {
	out := requestFor{ID: r.ID, Domain: r.Subject, State: r.State, Answer: r.Answer}
	if r.State == ledger.RequestGranting {
		out.State = ledger.RequestOpen // to whom waits it is the same
	}
	if !r.Until.IsZero() {
		out.Until = clock(r.Until)
	}
	return out
}

// requestText says what became of a request, to an agent.
func requestText(r ledger.Request) string {
	answer := ""
	if r.Answer != "" {
		answer = ": " + r.Answer
	}
	switch r.State {
	case ledger.RequestGranted:
		if !r.Until.IsZero() && time.Now().After(r.Until) {
			return fmt.Sprintf("%s: %s was granted until %s, which is over%s; ask again if you need it", r.ID, r.Subject, clock(r.Until), answer)
		}
		if r.Until.IsZero() {
			return fmt.Sprintf("%s: %s is granted%s", r.ID, r.Subject, answer)
		}
		return fmt.Sprintf("%s: %s is granted until %s%s", r.ID, r.Subject, clock(r.Until), answer)
	case ledger.RequestDenied:
		return fmt.Sprintf("%s: %s was denied by a human%s; do without it", r.ID, r.Subject, answer)
	case ledger.RequestRevoked:
		return fmt.Sprintf("%s: %s was granted, and a human took that back; do without it, or ask again", r.ID, r.Subject)
	case ledger.RequestExpired, ledger.RequestWithdrawn:
		return fmt.Sprintf("%s: the request for %s is %s%s", r.ID, r.Subject, r.State, answer)
	}
	return fmt.Sprintf("%s: a human is asked about %s; call wait with this id for the answer, and go on with other work meanwhile", r.ID, r.Subject)
}

var denyDomain = define(Tool{
	Verb: policy.VerbDenyDomain, Title: "Deny domains", Destructive: true, Idempotent: true,
	Description: "Takes domains from what a sandbox may reach, those of its mode too, and cuts open connections there.",
}, func(ctx context.Context, s Session, in denyInput) (egressChange, Result, error) {
	change, err := s.Manager.Deny(ctx, s.Caller, in.Name, in.Domains)
	if err != nil {
		return egressChange{}, Result{}, err
	}
	out := changeOf(change)
	text := fmt.Sprintf("%s can't reach %s now; %s cut%s", in.Name, strings.Join(in.Domains, ", "), count(change.Cut, "connection", "connections"), notEnforced(change.Egress, view.Agent))
	if len(out.Unchanged) > 0 {
		text += "; not allowed before: " + strings.Join(out.Unchanged, ", ")
	}
	return out, Result{Text: text}, nil
})

var egressTool = define(Tool{
	Verb: policy.VerbEgress, Title: "Show or set egress", Idempotent: true,
	Description: "Shows what a sandbox may reach: mode, rules, latest denials, and whether the host enforces it. With mode sets that first, at once.",
}, func(ctx context.Context, s Session, in egressInput) (egressOutput, Result, error) {
	var change manager.EgressChange
	var err error
	if in.Mode != "" {
		change, err = s.Manager.SetEgress(ctx, s.Caller, in.Name, in.Mode)
	} else {
		change.Network, err = s.Manager.Egress(ctx, s.Caller, in.Name)
	}
	if err != nil {
		return egressOutput{}, Result{}, err
	}
	out := EgressOf(change, view.Agent)
	return out, Result{Text: EgressText(in.Name, change, view.Agent)}, nil
})

// EgressOf is what a sandbox may reach, as the tool egress answers it.
func EgressOf(c manager.EgressChange, to view.Audience) egressOutput {
	out := egressOutput{Mode: c.Mode, Enforced: c.Enforced, Why: view.NotEnforced(c.Egress, to), Missing: view.Gap(c.Egress, to), Rules: []egressRule{}, Denials: []egressDenial{}, Cut: c.Cut}
	for _, g := range c.Rules {
		rule := egressRule{Rule: g.Rule.String(), From: g.From, Deny: g.Deny}
		if !g.Until.IsZero() {
			rule.Until = clock(g.Until)
		}
		out.Rules = append(out.Rules, rule)
	}
	for _, r := range c.Requests {
		out.Requests = append(out.Requests, r.ID+" "+r.Subject)
	}
	for _, d := range c.Denials {
		out.Denials = append(out.Denials, egressDenial{d.Where(), d.Reason, d.Count, d.At})
	}
	return out
}

func changeOf(c manager.EgressChange) egressChange {
	out := egressChange{Enforced: c.Enforced, Cut: c.Cut}
	for _, r := range c.Missing {
		out.Unchanged = append(out.Unchanged, r.String())
	}
	return out
}

func notEnforced(e sandbox.Egress, to view.Audience) string {
	if e.Enforced {
		return ""
	}
	return "; NOT ENFORCED: " + view.NotEnforced(e, to)
}

// shownDenials is how many of the latest are shown as text.
const shownDenials = 10

// EgressText shows what a sandbox may reach, to agents and people. Rules of a preset are counted by whose they are.
func EgressText(name string, c manager.EgressChange, to view.Audience) string {
	lines := []string{fmt.Sprintf("%s: egress %s, enforced", name, c.Mode)}
	if !c.Enforced {
		lines[0] = fmt.Sprintf("%s: egress %s%s", name, c.Mode, notEnforced(c.Egress, to))
	}
	if c.Gap != "" {
		lines = append(lines, "not promised here: "+view.Gap(c.Egress, to))
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
			from += ", until " + clock(g.Until)
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
		lines = append(lines, "  but not "+standing(d))
	}
	for _, r := range c.Requests {
		lines = append(lines, "  "+requestText(r))
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

// standing says that a denial stands against what is allowed.
func standing(d egress.Grant) string {
	return fmt.Sprintf("%s, which stays denied (by %s)", d.Rule, d.From)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
