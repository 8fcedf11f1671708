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

type allowOutput struct {
	Granted  []string       `json:"granted,omitempty" jsonschema:"by the policy, in reach now"`
	Requests []view.Request `json:"requests,omitempty" jsonschema:"what a human must decide about, or has decided"`
	Enforced bool           `json:"enforced"`
}

var allowDomain = define(Tool{
	Verb: policy.VerbAllowDomain, Title: "Allow domains", Idempotent: true,
	Description: "Asks that a sandbox may reach domains, for egress agent and allowlist. What the policy grants is in reach at once; for the rest a human is asked, " +
		"whose answer is for the sandboxes that asked, unless they say otherwise; wait waits for it. exec says when a connection was denied.",
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
	out := allowOutput{Granted: []string{}, Requests: []view.Request{}, Enforced: got.Enforced}
	for _, r := range got.Granted {
		out.Granted = append(out.Granted, r.String())
	}
	reached := slices.Clone(out.Granted)
	var lines, open []string
	for _, r := range got.Requests {
		if !r.State.Ended() {
			open = append(open, r.ID)
		}
		if r.State == ledger.RequestGranted {
			reached = append(reached, r.Subject)
		}
		out.Requests = append(out.Requests, view.RequestOf(r))
		lines = append(lines, view.RequestLine(r))
	}
	switch {
	case len(reached) > 0:
		lines = append([]string{fmt.Sprintf("%s may reach %s now%s", in.Name, strings.Join(reached, ", "), view.Unenforced(got.Egress, s.Audience))}, lines...)
		for _, d := range got.Standing {
			lines = append(lines, "but not "+view.StandingDenial(d))
		}
	case len(out.Requests) == 0:
		lines = []string{fmt.Sprintf("%s may reach %s already%s", in.Name, strings.Join(in.Domains, ", "), view.Unenforced(got.Egress, s.Audience))}
	}
	return out, Result{Text: strings.Join(lines, "\n"), Next: waitCall(open...)}, nil
})

var denyDomain = define(Tool{
	Verb: policy.VerbDenyDomain, Title: "Deny domains", Destructive: true, Idempotent: true,
	Description: "Takes domains from what a sandbox may reach, those of its mode too, and cuts open connections there.",
}, func(ctx context.Context, s Session, in denyInput) (view.EgressChange, Result, error) {
	change, err := s.Manager.Deny(ctx, s.Caller, in.Name, in.Domains)
	if err != nil {
		return view.EgressChange{}, Result{}, err
	}
	out := view.EgressChangeOf(change)
	text := fmt.Sprintf("%s can't reach %s now; %s cut%s", in.Name, strings.Join(in.Domains, ", "), view.Count(change.Cut, "connection", "connections"), view.Unenforced(change.Egress, s.Audience))
	if len(out.Unchanged) > 0 {
		text += "; not allowed before: " + strings.Join(out.Unchanged, ", ")
	}
	return out, Result{Text: text}, nil
})

var egressTool = define(Tool{
	Verb: policy.VerbEgress, Title: "Show or set egress", Idempotent: true,
	Description: "Shows what a sandbox may reach: mode, rules, latest denials, and whether the host enforces it. With mode sets that first, at once.",
}, func(ctx context.Context, s Session, in egressInput) (view.Egress, Result, error) {
	var change manager.EgressChange
	var err error
	if in.Mode != "" {
		change, err = s.Manager.SetEgress(ctx, s.Caller, in.Name, in.Mode)
	} else {
		change.Network, err = s.Manager.Egress(ctx, s.Caller, in.Name)
	}
	if err != nil {
		return view.Egress{}, Result{}, err
	}
	out := view.EgressOf(change, s.Audience)
	return out, Result{Text: view.EgressText(in.Name, change, s.Audience)}, nil
})
