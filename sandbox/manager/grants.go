package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/units"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Standing is a grant that is in force, with the sandboxes that have it.
type Standing struct {
	Owner   string       `json:"owner"`
	Rule    egress.Rule  `json:"rule"`
	Scope   policy.Scope `json:"scope"` // lineage where copies inherit it
	From    string       `json:"from"`  // who gave it, and how
	At      time.Time    `json:"at,omitzero"`
	Until   time.Time    `json:"until,omitzero"` // the zero time is never
	Names   []string     `json:"sandboxes"`
	Request string       `json:"request,omitempty"` // ID of the one that it answers
	Uses    int          `json:"uses"`              // connections by it on record, or by another rule for the same
	Last    time.Time    `json:"last,omitzero"`
}

// fromRequest finds the request that a rule is from.
var fromRequest = regexp.MustCompile(`request (req-[a-z0-9]+)$`)

// same tells whether a rule of a sandbox is the grant.
func (g Standing) same(rule egress.Grant) bool {
	return !rule.Deny && rule.Rule.Equal(g.Rule) && rule.From == g.From && scopeOf(rule) == g.Scope
}

func scopeOf(rule egress.Grant) policy.Scope {
	switch {
	case rule.Once != "":
		return policy.Once
	case rule.Alone:
		return policy.Askers
	}
	return policy.ThisLineage
}

// Grants returns the grants in force, of all owners and sandboxes where none is named, the latest first. What a mode brings
// along is none of them.
func (h *Human) Grants(ctx context.Context, owner, name string) (out []Standing, err error) {
	c := h.call()
	boxes, err := h.Everybodys(ctx)
	if err != nil {
		return nil, err
	}
	boxes = slices.DeleteFunc(boxes, func(s sandbox.Sandbox) bool { return owner != "" && s.Owner != owner || name != "" && s.Name != name })
	since := time.Now()
	own := make([][]egress.Grant, len(boxes))
	sideBySide(len(boxes), parallel, func(i int) {
		own[i] = append(egress.Lasting(boxes[i].Rules), c.once(ctx, boxes[i])...)
	})
	for i, s := range boxes {
		for _, rule := range own[i] {
			if rule.Deny {
				continue
			}
			i := slices.IndexFunc(out, func(g Standing) bool { return g.Owner == s.Owner && g.same(rule) && g.Until.Equal(rule.Until) })
			if i < 0 {
				i = len(out)
				g := Standing{Owner: s.Owner, Rule: rule.Rule, Scope: scopeOf(rule), From: rule.From, At: rule.At, Until: rule.Until}
				if found := fromRequest.FindStringSubmatch(rule.From); found != nil {
					g.Request = found[1]
				}
				out = append(out, g)
			}
			out[i].Names = append(out[i].Names, s.Name)
			if !rule.At.IsZero() && rule.At.Before(since) {
				since = rule.At
			}
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	uses, err := c.gate.store.Uses(since)
	if err != nil {
		return nil, err
	}
	for i := range out {
		g := &out[i]
		for _, u := range uses {
			if u.Owner == g.Owner && slices.Contains(g.Names, u.Sandbox) && !u.Last.Before(g.At) && covers(g.Rule, u.Target) {
				g.Uses += u.Count
				if u.Last.After(g.Last) {
					g.Last = u.Last
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Standing) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Rule.String(), b.Rule.String()))
	})
	return out, nil
}

// once are a sandbox's grants for one connection that was not made yet. Its gateway alone knows them; where none answers there
// are none.
func (c *call) once(ctx context.Context, s sandbox.Sandbox) []egress.Grant {
	if s.State != sandbox.Running || s.Egress == egress.None {
		return nil
	}
	now, err := c.gate.backend.Egress(ctx, s.ID)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(now.Rules, func(g egress.Grant) bool { return g.Once == "" || g.Spent })
}

// covers tells whether a rule is for where a connection went, in the form that records have.
func covers(rule egress.Rule, target string) bool {
	to, err := egress.ParseRule(target)
	return err == nil && to.Overlaps(rule)
}

// RevokeGrant takes a grant back from all sandboxes of an owner that have it, and cuts what it let out. It returns their names;
// ErrNotFound when none has it.
func (h *Human) RevokeGrant(ctx context.Context, owner string, rule egress.Rule, from string) (names []string, err error) {
	c := h.call()
	return c.takeBackGrant(ctx, owner, func(g egress.Grant) bool { return g.From == from && g.Rule.Equal(rule) })
}

// RevokeRequest takes back what a request was granted. Who waits for it, or asks about it, hears that.
func (h *Human) RevokeRequest(ctx context.Context, id, by string) (r ledger.Request, names []string, err error) {
	c := h.call()
	if r, err = c.gate.store.Request(id); err != nil {
		return r, nil, err
	}
	if r.State != ledger.RequestGranted {
		return r, nil, fault.Errorf(sandbox.ErrState, fault.Hint{}, "request %s is %s: that is the wrong state; only what was granted can be revoked", id, r.State)
	}
	names, err = c.takeBackGrant(ctx, r.Owner, func(g egress.Grant) bool {
		found := fromRequest.FindStringSubmatch(g.From)
		return g.ByHuman() && found != nil && found[1] == id
	})
	switch {
	case !errors.Is(err, sandbox.ErrNotFound):
	case r.DecidedBy != "": // it has ended, or its sandboxes have
		err = nil
	default:
		err = fault.Errorf(sandbox.ErrState, fault.Hint{}, "request %s was %s: that is what to revoke (wrong state)", id, r.Answer)
	}
	if err != nil {
		return r, nil, err
	}
	r, err = c.gate.store.Revoke(id, by)
	return r, names, err
}

func (c *call) takeBackGrant(ctx context.Context, owner string, is func(egress.Grant) bool) (names []string, err error) {
	list, err := c.read.List(ctx, owner)
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	b := c.unvetted()
	var all []error
	for _, s := range list {
		had := slices.ContainsFunc(s.Rules, func(g egress.Grant) bool { return !g.Deny && is(g) })
		if had {
			_, err := c.editEgress(ctx, b, s, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
				return mode, slices.DeleteFunc(slices.Clone(own), func(g egress.Grant) bool { return !g.Deny && is(g) }), nil
			})
			if err != nil && !errors.Is(err, sandbox.ErrNotFound) {
				all = append(all, fmt.Errorf("sandbox %s: %w", s.Name, err))
				continue
			}
		}
		once, err := c.takeBackOnce(ctx, s, is)
		if err != nil {
			all = append(all, fmt.Errorf("sandbox %s: %w", s.Name, err))
		}
		if had || once {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 && len(all) == 0 {
		return nil, fault.About(sandbox.ErrNotFound, "that grant", "not found: it has ended, or was taken back")
	}
	return names, errors.Join(all...)
}

// takeBackOnce takes grants for one connection from the gateway.
func (c *call) takeBackOnce(ctx context.Context, s sandbox.Sandbox, is func(egress.Grant) bool) (took bool, err error) {
	if s.State != sandbox.Running || s.Egress == egress.None {
		return false, nil
	}
	now, err := c.gate.backend.Egress(ctx, s.ID)
	if err != nil {
		return false, nil // without a gateway there is none
	}
	for _, g := range now.Rules {
		if g.Once == "" || !is(g) {
			continue
		}
		g.Until = time.Now()
		if err := c.gate.backend.GrantOnce(ctx, s.ID, g); err != nil && !errors.Is(err, sandbox.ErrState) {
			return took, err
		}
		took = true
	}
	return took, nil
}

// RevokeRules takes grants for domains, or for less, back from one sandbox, and cuts what they let out. What the mode brings
// along stays. ErrNotFound when it has none.
func (h *Human) RevokeRules(ctx context.Context, owner, name string, domains []string) (EgressChange, error) {
	c := h.call()
	rules, err := parseRules(domains, egress.ParseDenial)
	if err != nil {
		return EgressChange{}, err
	}
	s, err := c.get(ctx, owner, name)
	if err != nil {
		return EgressChange{}, err
	}
	is := func(g egress.Grant) bool {
		return !g.Deny && slices.ContainsFunc(rules, g.Rule.Within)
	}
	had := slices.ContainsFunc(s.Rules, is)
	change, err := c.changeEgress(ctx, policy.Call{Verb: policy.VerbDenyDomain, Owner: owner, Sandbox: name, Needs: policy.Needs{Denied: rules}}, name, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
		return mode, slices.DeleteFunc(slices.Clone(own), is), nil
	})
	if err != nil {
		return change, err
	}
	once, err := c.takeBackOnce(ctx, s, is)
	if err == nil && !had && !once {
		err = fault.Errorf(sandbox.ErrNotFound, fault.Hint{Action: fault.ShowGrants, Name: name}, "a grant of %s for sandbox %q %s", ruleTexts(rules), name, sandbox.ErrNotFound)
	}
	return change, err
}

// Allowance is what the policy grants unasked, and how often it did.
type Allowance struct {
	Owner string       `json:"owner"`
	Rule  egress.Rule  `json:"rule"`
	Scope policy.Scope `json:"scope"`
	For   string       `json:"for"`
	Given int          `json:"given"` // how often, as far as there is a record of it
	Last  time.Time    `json:"last,omitzero"`
}

// Allowances are what the policy grants an owner unasked; of everybody, where none is named, those that were given to somebody.
func (h *Human) Allowances(owner string) (out []Allowance, err error) {
	c := h.call()
	owners := []string{owner}
	if owner == "" {
		if owners, err = c.gate.store.Owners(); err != nil {
			return nil, err
		}
	}
	now := c.set
	for _, o := range owners {
		for _, a := range now.For(o).Allowances() {
			given, last, err := c.gate.store.Fired(o, allowanceRule+a.Rule.String())
			if err != nil {
				return nil, err
			}
			if owner == "" && given == 0 {
				continue // it is everybody's, and was of no use to this one
			}
			out = append(out, Allowance{Owner: o, Rule: a.Rule, Scope: a.Scope, For: units.Duration(a.For), Given: given, Last: last})
		}
	}
	return out, nil
}
