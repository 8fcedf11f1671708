package manager

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/plain"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// AllowRequest asks for domains to be in a sandbox's reach.
type AllowRequest struct {
	Name    string
	Domains []string
	Reason  string        // what for; shown to the human, and kept with the rule
	TTL     time.Duration // for how long; 0 means as long as may be, or what the human says
	// Again tells that it was asked just before, so that the question counts once.
	Again bool
	// Addresses lets ranges of addresses be allowed too; for humans alone.
	Addresses bool
}

// AllowResult says what came of it.
type AllowResult struct {
	EgressChange
	Granted  []egress.Rule
	Requests []ledger.Request // what a human must decide about, or has decided
}

// maxGranting bounds how often it is looked whether a request that is being granted is so.
const maxGranting = 100

// MaxReason bounds what is said of a rule, in bytes.
const MaxReason = 300

// askEvery is how often it is looked whether there is an answer.
const askEvery = 100 * time.Millisecond

// expiryEvery is how often it is looked whether the time of a request is over, of which nothing tells.
const expiryEvery = 5 * time.Second

// Allow lets a sandbox reach domains, as far as the policy grants them unasked; the others are put to a human.
func (m *Manager) Allow(ctx context.Context, caller Caller, r AllowRequest) (AllowResult, error) {
	c := m.begin(caller)
	r.Reason = plain.Line(r.Reason, MaxReason)
	rules, err := allowRules(r.Domains, r.Addresses && c.human)
	if err != nil {
		return AllowResult{}, err
	}
	now := c.rules(c.Owner)
	_, longest := now.GrantFor()
	if r.TTL < 0 || r.TTL > longest {
		return AllowResult{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("ttl %s", r.TTL), "is invalid: a grant may last up to %s here", longest)
	}
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbAllowDomain, Owner: c.Owner, Sandbox: r.Name, Needs: policy.Needs{Domains: rules}}, r.Name)
	if err != nil {
		return AllowResult{}, err
	}
	if s.Egress == egress.None {
		return AllowResult{}, nothingIn(s)
	}
	give, ask := c.divide(b.verdict, s, rules)
	var out AllowResult
	if len(give) > 0 {
		as := c.terms(c.Owner, c.by(policy.VerbAllowDomain, c.Owner, r.Reason), r.TTL)
		if out.EgressChange, err = c.change(ctx, b, s, as, give); err != nil {
			return out, err
		}
		c.fired(ctx, s, give)
		out.Granted = give
		if c.human {
			c.settle(context.WithoutCancel(ctx), s.Owner, s.Lineage, "granted by "+ruleTexts(give)+" ("+c.by(policy.VerbAllowDomain, c.Owner, "")+")")
		}
	}
	if out.Requests, err = c.raise(s, r.Reason, r.TTL, ask, r.Again); err != nil {
		return out, err
	}
	out.Network, err = c.egressOf(ctx, b, s)
	return out, err
}

// divide tells what of rules a sandbox is given, and what a human is asked for. What it may reach already is in neither.
func (c *call) divide(v policy.Verdict, s sandbox.Sandbox, rules []egress.Rule) (give, ask []egress.Rule) {
	for _, rule := range rules {
		_, has := s.Has(c.defaults.Presets, rule)
		switch {
		case c.human:
			give = append(give, rule)
		case has:
		case s.DeniedByHuman(rule) || slices.ContainsFunc(v.Ask, rule.Equal):
			ask = append(ask, rule)
		default:
			give = append(give, rule)
		}
	}
	return give, ask
}

// raise puts rules to a human, for a sandbox and its lineage.
func (c *call) raise(s sandbox.Sandbox, reason string, wanted time.Duration, rules []egress.Rule, again bool) (out []ledger.Request, err error) {
	for _, rule := range rules {
		ask := ledger.Request{
			Owner: s.Owner, Sandbox: s.Name, Born: s.CreatedAt, Lineage: s.Lineage, Subject: rule.String(), Reason: reason, Source: ledger.ByAgent, Wanted: ledger.Seconds(wanted / time.Second), Again: again,
		}
		r, _, err := c.gate.store.Raise(ask)
		// One that is just being granted is for those that asked before: this one asks when that is over.
		for tries := 0; tries < maxGranting && err == nil && r.State == ledger.RequestGranting && !asks(r, s); tries++ {
			time.Sleep(askEvery)
			r, _, err = c.gate.store.Raise(ask)
		}
		if err != nil {
			return out, fmt.Errorf("%s can't be asked for: %w", rule, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func ruleTexts(rules []egress.Rule) string {
	var out []string
	for _, r := range rules {
		out = append(out, r.String())
	}
	return strings.Join(out, ", ")
}

// openIDs are those of the requests that are not answered.
func openIDs(requests []ledger.Request) (ids []string) {
	for _, r := range requests {
		if !r.State.Ended() {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// by says who gave a rule and why, for whoever looks at it later.
func (c *call) by(verb policy.Verb, owner, reason string) string {
	by := string(verb)
	if c.human {
		by = egress.Human + c.Channel + ", by " + owner
	}
	if reason != "" {
		return by + ": " + reason
	}
	return by
}

// end is when a grant for d ends.
func end(d, longest time.Duration) time.Time {
	if d == 0 {
		d = longest
	}
	return time.Now().Add(d).UTC().Truncate(time.Millisecond)
}

func nothingIn(s sandbox.Sandbox) error {
	return fault.Errorf(sandbox.ErrState, fault.Hint{}, "the egress of sandbox %q is %s, in which nothing can be allowed: that is the wrong state; set it to %s or %s first", s.Name, s.Egress, egress.Allowlist, egress.Agent)
}

// terms are those on which an owner is given rules without a question to a human: those of a human who gives them, or else of
// the policy, and for no longer than ttl, unless that is 0.
func (c *call) terms(owner, from string, ttl time.Duration) func(egress.Rule) egress.Grant {
	now := c.rules(owner)
	_, longest := now.GrantFor()
	return func(r egress.Rule) egress.Grant {
		lasting, alone := cmp.Or(ttl, longest), false
		if a, ok := now.Allowance(r); ok && !c.human {
			lasting, alone = min(lasting, a.For), a.Scope == policy.Askers
		}
		return egress.Grant{From: from, Until: end(lasting, longest), Alone: alone}
	}
}

// allow adds rules to a sandbox's own, each on its terms.
func allow(own []egress.Grant, as func(egress.Rule) egress.Grant, rules []egress.Rule) (out []egress.Grant, err error) {
	out = own
	for _, r := range rules {
		if out, err = egress.Allow(out, as(r), r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// allowanceRule begins the rule of a record that says which allowance of the policy gave a sandbox something.
const allowanceRule = "egress.allow "

// fired puts on record that the policy gave a sandbox rules.
func (c *call) fired(ctx context.Context, s sandbox.Sandbox, rules []egress.Rule) {
	now := c.rules(s.Owner)
	for _, r := range rules {
		if a, ok := now.Allowance(r); ok && !c.human {
			c.record(ledger.Record{Kind: ledger.Changed, Owner: s.Owner, Sandbox: s.Name, Lineage: s.Lineage, Verdict: string(policy.Allow), Rule: allowanceRule + a.Rule.String(), Target: r.String()})
		}
	}
}

// change gives a sandbox rules.
func (c *call) change(ctx context.Context, b *permit, s sandbox.Sandbox, as func(egress.Rule) egress.Grant, rules []egress.Rule) (EgressChange, error) {
	change, err := c.editEgress(ctx, b, s, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
		if mode == egress.None {
			return "", nil, nothingIn(s)
		}
		own, err := allow(own, as, rules)
		return mode, own, err
	})
	for _, r := range rules {
		change.Standing = append(change.Standing, egress.Standing(change.Rules, r)...)
	}
	return change, err
}

// Await waits until all requests are answered, or for a time, and returns them as they are then.
func (m *Manager) Await(ctx context.Context, requests []ledger.Request, wait time.Duration) ([]ledger.Request, error) {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	changes, done := m.gate.store.Changes()
	defer done()
	for last := wait <= 0; ; {
		open := false
		changed := changes()
		for i, r := range requests {
			if r.State.Ended() {
				continue
			}
			now, err := m.gate.store.Request(r.ID)
			if err != nil {
				return requests, err
			}
			requests[i] = now
			open = open || !now.State.Ended()
		}
		if !open || last {
			return requests, nil
		}
		select {
		case <-ctx.Done():
			return requests, ctx.Err()
		case <-changed:
		case <-time.After(expiryEvery):
		case <-deadline.C:
			last = true
		}
	}
}

// WaitRequest returns a request of an owner's once it is answered, or after a time.
func (m *Manager) WaitRequest(ctx context.Context, caller Caller, id string, wait time.Duration) (ledger.Request, error) {
	c := m.begin(caller)
	if _, err := c.vet(ctx, policy.Call{Verb: policy.VerbWait, Owner: c.Owner}); err != nil {
		return ledger.Request{}, err
	}
	r, err := c.request(id)
	if err != nil {
		return ledger.Request{}, err
	}
	list, err := c.Await(ctx, []ledger.Request{r}, wait)
	return list[0], err
}
