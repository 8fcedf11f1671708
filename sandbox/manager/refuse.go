package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Refuse answers a request with no. Connections that wait for the answer are denied at once, and what the sandboxes of its
// lineage may reach of it meanwhile is taken from them.
func (h *Human) Refuse(ctx context.Context, a Approval) (ledger.Request, error) {
	c := h.call()
	var seen func(ledger.Request) error
	if a.Seen != "" {
		seen = ledger.Seen(a.Seen, c.usual)
	}
	r, err := c.gate.store.Refuse(a.ID, a.By, a.Answer, seen)
	if err != nil {
		return r, err
	}
	ctx = context.WithoutCancel(ctx)
	err = c.takeRefused(ctx, r, a.By)
	// It is refused; that those who wait for it must wait a little longer where they can't be told is no failure.
	_ = c.release(ctx, r)
	return r, err
}

// takeRefused takes from the sandboxes of a lineage what was refused, where a grant allows it.
func (c *call) takeRefused(ctx context.Context, r ledger.Request, by string) error {
	rule, err := egress.ParseDomainRule(r.Subject)
	if err != nil {
		return err
	}
	boxes, err := c.asking(ctx, r, policy.ThisLineage)
	if errors.Is(err, sandbox.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var all []error
	for _, s := range boxes {
		// What is for less than was asked stays: it was given for itself.
		given := func(g egress.Grant) bool { return !g.Deny && g.Rule.Overlaps(rule) && rule.NameWithin(g.Rule) }
		if s.Egress == egress.Unrestricted || !slices.ContainsFunc(c.defaults.Presets.For(s.Egress, s.Rules).Rules, given) {
			continue
		}
		_, err := c.editEgress(ctx, c.unvetted(), s, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			own, _, err := c.defaults.Presets.Deny(mode, own, egress.Human+by+", request "+r.ID, false, rule)
			return mode, own, err
		})
		if err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			all = append(all, fmt.Errorf("it is refused, and still allowed in sandbox %s: %w", s.Name, err))
		}
	}
	return errors.Join(all...)
}

// release denies the connections that wait for the answer to a request.
func (c *call) release(ctx context.Context, r ledger.Request) error {
	rule, err := egress.ParseDomainRule(r.Subject)
	if err != nil {
		return err
	}
	boxes, err := c.asking(ctx, r, policy.ThisLineage)
	if err != nil {
		return err
	}
	var all []error
	for _, s := range boxes {
		for _, p := range rule.Ports {
			if p.First == p.Last { // a connection asks for one port, or for the two of the web
				all = append(all, c.gate.backend.Hold(ctx, s.ID, rule.Domain, p.First, 0))
			}
		}
	}
	return errors.Join(all...)
}
