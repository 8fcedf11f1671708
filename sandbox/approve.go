package sandbox

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"pixels/egress"
	"pixels/internal/units"
	"pixels/policy"
)

// Approval is a human's answer to a request.
type Approval struct {
	ID     string
	Seen   string        // the digest of the request as it was shown; see Digest
	By     string        // who, by which channel
	Scope  policy.Scope  // empty means those that asked
	For    time.Duration // 0 means what Digest was of
	Answer string        // a word to the agent
}

// Approved is what came of an approval.
type Approved struct {
	policy.Request
	Names    []string       // of the sandboxes that were given it
	Standing []egress.Grant // denials of a part of it, which stand
}

// Digest names all that there is to see of a request, with how long its grant lasts unless the answer says otherwise.
func (m *Manager) Digest(r policy.Request) string { return r.Digest(m.usual(r)) }

// Handle is the ID of a request with its digest.
func (m *Manager) Handle(r policy.Request) string { return r.Handle(m.usual(r)) }

func (m *Manager) usual(r policy.Request) time.Duration {
	usual, _ := m.GrantFor(r)
	return usual
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

// Approve grants what a request asks for. When it can't be given to all that it is for it is given to none, and the request
// stays open. policy.ErrChanged is for one that is not what was shown.
func (m *Manager) Approve(ctx context.Context, a Approval) (Approved, error) {
	if !m.human {
		return Approved{}, errNotHuman
	}
	if a.Scope == "" {
		a.Scope = policy.Askers
	}
	if !slices.Contains(policy.Scopes, a.Scope) {
		return Approved{}, fmt.Errorf("scope %s is %w: use one of %v", quote(string(a.Scope)), ErrInvalid, policy.Scopes)
	}
	r, err := m.gate.store.Request(a.ID)
	if err != nil {
		return Approved{Request: r}, err
	}
	usual, longest := m.GrantFor(r)
	if a.For == 0 {
		a.For = usual
	}
	if a.For < time.Second || a.For > longest {
		return Approved{Request: r}, fmt.Errorf("%s is %w: a grant may last 1s to %s here (egress.max_grant of the policy)", units.Duration(a.For), ErrInvalid, units.Duration(longest))
	}
	rule, err := egress.ParseDomainRule(r.Rule)
	if err != nil {
		return Approved{Request: r}, err
	}
	b, err := m.vet(ctx, policy.Call{Name: "allow_domain", Owner: r.Owner, Sandbox: r.Sandbox, Domains: []egress.Rule{rule}})
	if err != nil {
		return Approved{Request: r}, err
	}
	if r, err = m.gate.store.Claim(a.ID, a.By, policy.Seen(a.Seen, m.usual)); err != nil {
		return Approved{Request: r}, err
	}
	as := egress.Grant{From: fmt.Sprintf("%s%s, request %s", egress.Human, a.By, r.ID), Until: end(a.For, longest), Alone: a.Scope == policy.Askers}
	// From here on it goes to its end, or back, whoever gives up meanwhile.
	ctx = context.WithoutCancel(ctx)
	boxes, err := m.asking(ctx, r, a.Scope)
	if err == nil && a.Scope == policy.Once {
		err = m.giveOnce(ctx, boxes[0], r.ID, as, rule)
	} else if err == nil {
		err = m.give(ctx, b, boxes, as, rule)
	}
	if err != nil {
		err = errors.Join(err, m.gate.store.Unclaim(r.ID))
		if errors.Is(err, ErrNotFound) {
			if _, e := m.gate.store.Withdraw(r.ID, "its sandboxes are gone"); e != nil {
				err = errors.Join(err, e)
			}
		}
		return Approved{Request: r}, err
	}
	out := Approved{}
	out.Request, err = m.gate.store.Grant(r.ID, a.By, a.Scope, as.Until, a.Answer)
	if err != nil {
		return out, fmt.Errorf("it is granted, and that could not be put down: %w", err)
	}
	for _, s := range boxes {
		out.Names = append(out.Names, s.Name)
	}
	if a.Scope != policy.Once {
		m.settle(ctx, r.Owner, r.Lineage, fmt.Sprintf("granted by %s (%s)", r.Rule, r.ID))
		if now, err := m.gate.backend.Egress(ctx, boxes[0].ID); err == nil {
			out.Standing = egress.Standing(now.Rules, rule)
		}
	}
	return out, nil
}

// giveOnce gives the gateway alone a grant for one connection.
func (m *Manager) giveOnce(ctx context.Context, s Sandbox, id string, as egress.Grant, rule egress.Rule) error {
	with, err := egress.Allow(s.Rules, as, rule)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	as = with[len(with)-1] // the newest, which beats what is older
	as.Once, as.Rule, as.Alone = id, rule, true
	return m.gate.backend.GrantOnce(ctx, s.ID, as)
}

// give brings a grant to sandboxes, to all or to none.
func (m *Manager) give(ctx context.Context, b *permit, boxes []Sandbox, as egress.Grant, rule egress.Rule) error {
	before := make([][]egress.Grant, len(boxes))
	after := make([][]egress.Grant, len(boxes))
	errs := make([]error, len(boxes))
	sideBySide(len(boxes), parallel, func(i int) {
		cut, err := b.SetEgress(ctx, boxes[i].ID, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			before[i] = own
			if mode == egress.None {
				return "", nil, nothingIn(boxes[i])
			}
			var err error
			after[i], err = egress.Allow(own, as, rule)
			return mode, after[i], err
		})
		if errs[i] = err; err == nil {
			m.changed(ctx, boxes[i], egress.Changes("", "", before[i], after[i]), cut)
		}
		if errors.Is(errs[i], ErrNotFound) { // it was destroyed meanwhile
			before[i], errs[i] = nil, nil
		}
	})
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	undone := make([]error, len(boxes))
	sideBySide(len(boxes), parallel, func(i int) {
		if errs[i] != nil && before[i] == nil {
			return
		}
		_, undone[i] = m.editEgress(ctx, b, boxes[i], func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			return mode, takeBack(own, before[i], after[i]), nil
		})
	})
	return fmt.Errorf("the grant can't be brought to all sandboxes, so none has it: %w", errors.Join(err, errors.Join(undone...)))
}

// takeBack returns rules without what a change added that made after of before, and with what it dropped.
func takeBack(own, before, after []egress.Grant) []egress.Grant {
	in := func(list []egress.Grant, g egress.Grant) bool {
		return slices.ContainsFunc(list, func(o egress.Grant) bool { return reflect.DeepEqual(o, g) })
	}
	var out []egress.Grant
	for _, g := range before {
		if in(own, g) || !in(after, g) {
			out = append(out, g)
		}
	}
	for _, g := range own {
		if !in(before, g) && !in(after, g) {
			out = append(out, g)
		}
	}
	return egress.Lasting(out)
}

// asking are the sandboxes that an answer of a scope is for.
func (m *Manager) asking(ctx context.Context, r policy.Request, scope policy.Scope) ([]Sandbox, error) {
	list, err := m.read.List(ctx, r.Owner)
	if err != nil {
		return nil, err
	}
	boxes := slices.DeleteFunc(list, func(s Sandbox) bool {
		return s.Lineage != r.Lineage || s.State == Creating || s.Egress == egress.None || scope != policy.ThisLineage && !asks(r, s) || scope == policy.Once && s.State == Stopped
	})
	if len(boxes) == 0 {
		return nil, fmt.Errorf("sandbox %q, which asked, %w: it is gone, or has no network any more", r.Sandbox, ErrNotFound)
	}
	if scope == policy.Once {
		return []Sandbox{oneOf(r, boxes)}, nil
	}
	return boxes, nil
}

// oneOf picks the sandbox that a grant for one connection is for: the one whose connection waits, of several the latest, or
// else the one that asked first.
func oneOf(r policy.Request, boxes []Sandbox) Sandbox {
	waits := time.Now()
	picked := -1
	for _, a := range r.Asked {
		if i := slices.IndexFunc(boxes, func(s Sandbox) bool { return a.Is(s.Name, s.CreatedAt) }); i >= 0 && a.Held.After(waits) {
			picked, waits = i, a.Held
		}
	}
	if picked < 0 {
		picked = max(0, slices.IndexFunc(boxes, func(s Sandbox) bool { return s.Name == r.Sandbox }))
	}
	return boxes[picked]
}

// asks tells whether a sandbox is one of those that asked.
func asks(r policy.Request, s Sandbox) bool {
	return s.Lineage == r.Lineage && slices.ContainsFunc(r.Asked, func(a policy.Asker) bool { return a.Is(s.Name, s.CreatedAt) })
}

// settle ends the open requests of a lineage whose sandboxes may all reach what they asked for by now: those who wait hear
// why. What it can't end stays open, for a human to answer.
func (m *Manager) settle(ctx context.Context, owner, lineage, why string) {
	open, err := m.gate.store.Requests(owner, 0, policy.RequestOpen)
	open = slices.DeleteFunc(open, func(r policy.Request) bool { return r.Lineage != lineage })
	if err != nil || len(open) == 0 {
		return
	}
	list, err := m.read.List(ctx, owner)
	if err != nil {
		return
	}
	for _, r := range open {
		rule, err := egress.ParseDomainRule(r.Rule)
		if err != nil {
			continue
		}
		n, until := 0, time.Time{}
		all := true
		for _, s := range list {
			if asks(r, s) {
				by, has := s.has(m.defaults.Presets, rule)
				all = all && has
				if n++; until.IsZero() || !by.Until.IsZero() && by.Until.Before(until) {
					until = by.Until
				}
			}
		}
		if n > 0 && all {
			_ = m.gate.store.Settle(r, why, until)
		}
	}
}

// Refuse answers a request with no. Connections that wait for the answer are denied at once, and what the sandboxes of its
// lineage may reach of it meanwhile is taken from them.
func (m *Manager) Refuse(ctx context.Context, a Approval) (policy.Request, error) {
	if !m.human {
		return policy.Request{}, errNotHuman
	}
	var seen func(policy.Request) error
	if a.Seen != "" {
		seen = policy.Seen(a.Seen, m.usual)
	}
	r, err := m.gate.store.Refuse(a.ID, a.By, a.Answer, seen)
	if err != nil {
		return r, err
	}
	ctx = context.WithoutCancel(ctx)
	err = m.takeRefused(ctx, r, a.By)
	// It is refused; that those who wait for it must wait a little longer where they can't be told is no failure.
	_ = m.release(ctx, r)
	return r, err
}

// takeRefused takes from the sandboxes of a lineage what was refused, where a grant allows it.
func (m *Manager) takeRefused(ctx context.Context, r policy.Request, by string) error {
	rule, err := egress.ParseDomainRule(r.Rule)
	if err != nil {
		return err
	}
	boxes, err := m.asking(ctx, r, policy.ThisLineage)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var all []error
	for _, s := range boxes {
		if s.Egress == egress.Unrestricted || !slices.ContainsFunc(m.defaults.Presets.For(s.Egress, s.Rules).Rules, func(g egress.Grant) bool { return !g.Deny && g.Rule.Overlaps(rule) }) {
			continue
		}
		b := &permit{Backend: m.gate.backend, gate: m.gate}
		_, err := m.editEgress(ctx, b, s, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			own, _, err := m.defaults.Presets.Deny(mode, own, egress.Human+by+", request "+r.ID, false, rule)
			return mode, own, err
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			all = append(all, fmt.Errorf("it is refused, and still allowed in sandbox %s: %w", s.Name, err))
		}
	}
	return errors.Join(all...)
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
