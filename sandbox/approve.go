package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"pixels/egress"
	"pixels/internal/units"
	"pixels/policy"
)

// Approval is a human's yes to a request.
type Approval struct {
	ID     string
	By     string        // who, by which channel
	Scope  policy.Scope  // empty means the whole lineage
	For    time.Duration // 0 means what the policy has
	Answer string        // a word to the agent
}

// errNotHuman ends what only a human may do; no tool comes here.
var errNotHuman = errors.New("only a human can decide about a request")

// Requests returns the requests of an owner, of all when it is empty, in one of the states.
func (m *Manager) Requests(owner string, limit int, states ...policy.RequestState) ([]policy.Request, error) {
	return m.gate.store.Requests(owner, limit, states...)
}

// Request returns one; policy.ErrNoRequest.
func (m *Manager) Request(id string) (policy.Request, error) { return m.gate.store.Request(id) }

// Present says that a human looks at requests, until leave is called: connections are held for their answer. name is one
// that nobody else has; patience is how long that is believed of a process that died.
func (m *Manager) Present(ctx context.Context, name string, patience time.Duration) (leave func(), err error) {
	lease := func() error {
		_, err := m.gate.store.Lease(PresenceLease+name, name, patience)
		return err
	}
	if err := lease(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() {
		tick := time.NewTicker(patience / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = lease() // who can't say it is there is not believed to be
			}
		}
	})
	return func() {
		cancel()
		keeping.Wait()
		_ = m.gate.store.Release(PresenceLease+name, name)
	}, nil
}

// Approve grants what a request asks for, and returns it with how many sandboxes were given it. When it can't be given
// to all of them it is given to none, and the request stays open.
func (m *Manager) Approve(ctx context.Context, a Approval) (policy.Request, int, error) {
	if !m.human {
		return policy.Request{}, 0, errNotHuman
	}
	if a.Scope == "" {
		a.Scope = policy.ThisLineage
	}
	if !slices.Contains(policy.Scopes, a.Scope) {
		return policy.Request{}, 0, fmt.Errorf("scope %s is %w: use one of %v", quote(string(a.Scope)), ErrInvalid, policy.Scopes)
	}
	r, err := m.gate.store.Request(a.ID)
	if err != nil {
		return r, 0, err
	}
	usual, longest := m.GrantFor(r)
	if a.For == 0 {
		a.For = usual
	}
	if a.For < time.Second || a.For > longest {
		return r, 0, fmt.Errorf("%s is %w: a grant may last 1s to %s here (egress.max_grant of the policy)", units.Duration(a.For), ErrInvalid, units.Duration(longest))
	}
	rule, err := egress.ParseDomainRule(r.Rule)
	if err != nil {
		return r, 0, err
	}
	b, err := m.vet(ctx, policy.Call{Name: "allow_domain", Owner: r.Owner, Sandbox: r.Sandbox, Domains: []egress.Rule{rule}})
	if err != nil {
		return r, 0, err
	}
	if r, err = m.gate.store.Claim(a.ID, a.By); err != nil {
		return r, 0, err
	}
	as := egress.Grant{From: fmt.Sprintf("%s%s, request %s", humanDid, a.By, r.ID), Until: end(a.For, longest)}
	if a.Scope == policy.Once {
		as.Once = r.ID
	}
	// From here on it goes to its end, or back, whoever gives up meanwhile.
	ctx = context.WithoutCancel(ctx)
	n, err := m.give(ctx, b, r, a.Scope, as, rule)
	if err != nil {
		err = errors.Join(err, m.gate.store.Unclaim(r.ID))
		if errors.Is(err, ErrNotFound) {
			if _, e := m.gate.store.Withdraw(r.ID, "its sandboxes are gone"); e != nil {
				err = errors.Join(err, e)
			}
		}
		return r, 0, err
	}
	r, err = m.gate.store.Grant(r.ID, a.By, a.Scope, as.Until, a.Answer)
	if err != nil {
		err = fmt.Errorf("it is granted, and that could not be put down: %w", err)
	}
	return r, n, err
}

// give brings a grant to the sandboxes that it is for, to all or to none.
func (m *Manager) give(ctx context.Context, b *permit, r policy.Request, scope policy.Scope, as egress.Grant, rule egress.Rule) (int, error) {
	boxes, err := m.asking(ctx, r, scope)
	if err != nil {
		return 0, err
	}
	before := make([][]egress.Grant, len(boxes))
	errs := make([]error, len(boxes))
	sideBySide(len(boxes), parallel, func(i int) {
		_, errs[i] = b.SetEgress(ctx, boxes[i].ID, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			before[i] = own
			if mode == egress.None {
				return "", nil, nothingIn(boxes[i])
			}
			own, err := egress.Allow(own, as, rule)
			return mode, own, err
		})
		if errors.Is(errs[i], ErrNotFound) { // it was destroyed meanwhile
			before[i], errs[i] = nil, nil
		}
	})
	err = errors.Join(errs...)
	if err == nil {
		return len(boxes), nil
	}
	undone := make([]error, len(boxes))
	sideBySide(len(boxes), parallel, func(i int) {
		if errs[i] != nil && before[i] == nil {
			return
		}
		_, undone[i] = b.SetEgress(ctx, boxes[i].ID, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			return mode, slices.DeleteFunc(slices.Clone(own), func(g egress.Grant) bool { return g.From == as.From }), nil
		})
	})
	return 0, fmt.Errorf("the grant can't be brought to all sandboxes, so none has it: %w", errors.Join(err, errors.Join(undone...)))
}

// asking are the sandboxes that a request is for.
func (m *Manager) asking(ctx context.Context, r policy.Request, scope policy.Scope) ([]Sandbox, error) {
	list, err := m.read.List(ctx, r.Owner)
	if err != nil {
		return nil, err
	}
	boxes := slices.DeleteFunc(list, func(s Sandbox) bool {
		return s.Lineage != r.Lineage || s.State == Creating || s.Egress == egress.None || scope != policy.ThisLineage && s.Name != r.Sandbox
	})
	if len(boxes) == 0 {
		return nil, fmt.Errorf("sandbox %q, which asked, %w: it is gone, or has no network any more", r.Sandbox, ErrNotFound)
	}
	return boxes, nil
}

// Refuse answers a request with no. Connections that wait for the answer are denied at once.
func (m *Manager) Refuse(ctx context.Context, id, by, answer string) (policy.Request, error) {
	if !m.human {
		return policy.Request{}, errNotHuman
	}
	r, err := m.gate.store.Refuse(id, by, answer)
	if err != nil {
		return r, err
	}
	// It is refused; that those who wait for it must wait a little longer where they can't be told is no failure.
	_ = m.release(ctx, r)
	return r, nil
}

// release denies the connections that wait for the answer to a request.
func (m *Manager) release(ctx context.Context, r policy.Request) error {
	rule, err := egress.ParseDomainRule(r.Rule)
	if err != nil {
		return err
	}
	boxes, err := m.asking(ctx, r, policy.ThisLineage)
	if err != nil {
		return err
	}
	var all []error
	for _, s := range boxes {
		for _, p := range rule.Ports {
			if p.First == p.Last { // a connection asks for one port, or for the two of the web
				all = append(all, m.gate.backend.Hold(ctx, s.ID, rule.Domain, p.First, 0))
			}
		}
	}
	return errors.Join(all...)
}

// withdraw ends the open requests of an owner's whose sandboxes are gone.
func (m *Manager) withdraw(ctx context.Context, owner string) error {
	open, err := m.gate.store.Requests(owner, 0, policy.RequestOpen)
	if err != nil || len(open) == 0 {
		return err
	}
	list, err := m.read.List(ctx, owner)
	if err != nil {
		return err
	}
	for _, r := range open {
		if slices.ContainsFunc(list, func(s Sandbox) bool { return s.Lineage == r.Lineage }) {
			continue
		}
		if _, err := m.gate.store.Withdraw(r.ID, "its sandboxes are gone"); err != nil && !errors.Is(err, policy.ErrDecided) {
			return err
		}
	}
	return nil
}
