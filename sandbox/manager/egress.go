package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Network is what a sandbox may reach, what it was refused, and what is asked for it.
type Network struct {
	sandbox.Egress
	Requests []ledger.Request // of its lineage, open
}

// EgressChange says what became of a change.
type EgressChange struct {
	Network
	Cut     int           // connections that were open and are no longer allowed
	Missing []egress.Rule // of a denial: what was not allowed before
	// Standing are denials of a part of what was allowed, which stand.
	Standing []egress.Grant
}

// maxDomains bounds one request.
const maxDomains = 100

// Egress returns what a sandbox may reach.
func (m *Manager) Egress(ctx context.Context, caller Caller, name string) (Network, error) {
	c := m.begin(caller)
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbEgress, Owner: c.Owner, Sandbox: name}, name)
	if err != nil {
		return Network{}, err
	}
	return c.egressOf(ctx, b, s)
}

// egressOf is what a sandbox may reach, with what of it is asked.
func (c *call) egressOf(ctx context.Context, b *permit, s sandbox.Sandbox) (now Network, err error) {
	now.Egress, err = b.Egress(ctx, s.ID)
	if err != nil {
		return now, err
	}
	open, err := c.gate.store.Requests(s.Owner, 0, ledger.RequestOpen, ledger.RequestGranting)
	if err != nil {
		return now, nil // what it may reach is known, and what is asked is for the human
	}
	now.Requests = slices.DeleteFunc(open, func(r ledger.Request) bool { return r.Lineage != s.Lineage })
	return now, nil
}

// Deny takes from a sandbox what it may reach, and cuts connections there.
func (m *Manager) Deny(ctx context.Context, caller Caller, name string, domains []string) (EgressChange, error) {
	c := m.begin(caller)
	rules, err := parseRules(domains, egress.ParseDenial)
	if err != nil {
		return EgressChange{}, err
	}
	var missing []egress.Rule
	change, err := c.changeEgress(ctx, policy.Call{Verb: policy.VerbDenyDomain, Owner: c.Owner, Sandbox: name, Needs: policy.Needs{Denied: rules}}, name, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
		if mode == egress.Unrestricted {
			return "", nil, fault.Errorf(sandbox.ErrState, fault.Hint{}, "the egress of sandbox %q is %s, in which nothing can be denied: that is the wrong state; set it to %s or %s first", name, mode, egress.Agent, egress.Allowlist)
		}
		var err error
		own, missing, err = c.defaults.Presets.Deny(mode, own, c.by(policy.VerbDenyDomain, c.Owner, ""), c.human, rules...)
		return mode, own, err
	})
	change.Missing = missing
	return change, err
}

// SetEgress changes the egress mode of a sandbox. Its own rules stay, for the modes in which they count.
func (m *Manager) SetEgress(ctx context.Context, caller Caller, name string, mode egress.Mode) (EgressChange, error) {
	c := m.begin(caller)
	if err := checkEgress(mode); err != nil {
		return EgressChange{}, err
	}
	b, s, err := c.vettedBegun(ctx, policy.Call{Verb: policy.VerbEgress, Owner: c.Owner, Sandbox: name, Needs: policy.Needs{Mode: mode}}, name)
	if err != nil {
		return EgressChange{}, err
	}
	return c.setMode(ctx, b, s, mode)
}

func (c *call) changeEgress(ctx context.Context, call policy.Call, name string, edit sandbox.EgressEdit) (EgressChange, error) {
	b, s, err := c.vettedBegun(ctx, call, name)
	if err != nil {
		return EgressChange{}, err
	}
	return c.editEgress(ctx, b, s, edit)
}

// editEgress changes what a sandbox may reach, by a call that was vetted.
func (c *call) editEgress(ctx context.Context, b *permit, s sandbox.Sandbox, edit sandbox.EgressEdit) (EgressChange, error) {
	var cut int
	var what string
	err := b.on(ctx, s, func(id string) (err error) {
		cut, err = b.SetEgress(ctx, id, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			to, then, err := edit(mode, own)
			what = egress.Changes(mode, to, own, then)
			return to, then, err
		})
		return err
	})
	if errors.Is(err, egress.ErrTooMany) || errors.Is(err, egress.ErrStillDenied) {
		err = fmt.Errorf("%w: %w", sandbox.ErrInvalid, err)
	}
	if err != nil {
		return EgressChange{}, err
	}
	c.changed(ctx, s, what, cut)
	now, err := c.egressOf(ctx, b, s)
	return EgressChange{Network: now, Cut: cut}, err
}

// changed puts a change of what a sandbox may reach on record.
func (c *call) changed(ctx context.Context, s sandbox.Sandbox, what string, cut int) {
	c.record(ledger.Record{Kind: ledger.Changed, Owner: s.Owner, Sandbox: s.Name, Lineage: s.Lineage, Target: what, Detail: fmt.Sprintf("%d connections cut", cut)})
}

// allowRules reads what is to be allowed.
func allowRules(domains []string, addresses bool) ([]egress.Rule, error) {
	if addresses {
		return parseRules(domains, egress.ParseRule)
	}
	return parseRules(domains, egress.ParseDomainRule)
}

func parseRules(domains []string, parse func(string) (egress.Rule, error)) ([]egress.Rule, error) {
	switch {
	case len(domains) == 0:
		return nil, fault.About(sandbox.ErrInvalid, "domains", "is empty, which is invalid: name some, as example.com, *.example.com or example.com:8443")
	case len(domains) > maxDomains:
		return nil, fault.About(sandbox.ErrInvalid, "domains", "has %d, which is invalid: give up to %d in one call", len(domains), maxDomains)
	}
	var rules []egress.Rule
	for _, text := range domains {
		rule, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("domains: %w: %w", sandbox.ErrInvalid, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// allowed reads what the creator of a sandbox wants allowed in it.
func allowed(mode egress.Mode, allow []string) ([]egress.Rule, error) {
	if len(allow) == 0 {
		return nil, nil
	}
	if mode != egress.Agent && mode != egress.Allowlist {
		return nil, fault.About(sandbox.ErrInvalid, "allow", "is invalid with the egress %s: use %s or %s", mode, egress.Agent, egress.Allowlist)
	}
	rules, err := allowRules(allow, false)
	if err != nil {
		return nil, fmt.Errorf("allow: %w", err)
	}
	return rules, nil
}

// grant adds rules to a sandbox's own before it is made, and what the policy never grants as denials: a mode may bring it along.
func (c *call) grant(owner string, own []egress.Grant, rules []egress.Rule, by string) ([]egress.Grant, error) {
	now := c.rules(owner)
	for _, never := range now.Never() {
		if !slices.ContainsFunc(own, func(g egress.Grant) bool { return g.Deny && never.Within(g.Rule) }) {
			own = append(own[:len(own):len(own)], egress.Grant{Rule: never, From: egress.FromNever, Deny: true})
		}
	}
	own, err := allow(own, c.terms(owner, by, 0), rules)
	if err != nil {
		return nil, fmt.Errorf("allow is %w: %w", sandbox.ErrInvalid, err)
	}
	return own, nil
}

// denials returns what of a command's connections was denied since it began. That no gateway answers is no fault of the
// command.
func (p *permit) denials(ctx context.Context, id string, since time.Time) []sandbox.Denial {
	found, err := p.Denials(ctx, id, time.Since(since))
	if err != nil {
		return nil
	}
	return found
}
