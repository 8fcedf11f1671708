package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/units"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
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
	ledger.Request
	Names    []string       // of the sandboxes that were given it
	Standing []egress.Grant // denials of a part of it, which stand
}

// Digest names all that there is to see of a request, with how long its grant lasts unless the answer says otherwise.
func (m *Manager) Digest(r ledger.Request) string { return r.Digest(m.begin(Caller{}).usual(r)) }

// Handle is the ID of a request with its digest.
func (m *Manager) Handle(r ledger.Request) string { return r.Handle(m.begin(Caller{}).usual(r)) }

// GrantFor is how long the grant of a request lasts unless its approver says otherwise, which is what the agent wants where
// that is less than the policy has, and the longest that it may.
func (m *Manager) GrantFor(r ledger.Request) (usual, longest time.Duration) {
	return m.begin(Caller{}).grantFor(r)
}

func (c *call) grantFor(r ledger.Request) (usual, longest time.Duration) {
	usual, longest = c.rules(r.Owner).GrantFor()
	if wanted := r.Wanted.Duration(); wanted > 0 {
		usual = min(usual, wanted)
	}
	return min(usual, longest), longest
}

func (c *call) usual(r ledger.Request) time.Duration {
	usual, _ := c.grantFor(r)
	return usual
}

// Requests returns the requests of an owner, of all when it is empty, in one of the states.
func (m *Manager) Requests(owner string, limit int, states ...ledger.RequestState) ([]ledger.Request, error) {
	return m.gate.store.Requests(owner, limit, states...)
}

// Request returns one; ledger.ErrNoRequest.
func (m *Manager) Request(id string) (ledger.Request, error) { return m.gate.store.Request(id) }

// RequestOf returns one of an owner, or of who shares what is theirs; ledger.ErrNoRequest.
func (m *Manager) RequestOf(owner, id string) (ledger.Request, error) {
	return m.begin(Agent(owner)).request(id)
}

// request is RequestOf of who calls.
func (c *call) request(id string) (ledger.Request, error) {
	r, err := c.gate.store.Request(id)
	if err == nil && !c.set.Shares(r.Owner, c.Owner) {
		return ledger.Request{}, fmt.Errorf("%w: %s", ledger.ErrNoRequest, sandbox.Quote(id))
	}
	return r, err
}

// RecordsOf returns what is on record about an owner. One of a sandbox that never was is refused: nothing found would say that nothing
// was done.
func (m *Manager) RecordsOf(owner string, q ledger.Query) ([]ledger.Record, error) {
	q.Owner = owner
	if owner == "" {
		return nil, fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "nobody's records are asked for")
	}
	if err := m.gate.store.Known(q); err != nil {
		return nil, err
	}
	return m.gate.store.Records(q)
}

// Present says that a human looks at requests, until leave is called: connections are held for their answer. name is one
// that nobody else has; patience is how long that is believed of a process that died.
func (h *Human) Present(ctx context.Context, name string, patience time.Duration) (leave func(), err error) {
	lease := func() error {
		_, err := h.gate.store.Lease(PresenceLease+name, name, patience)
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
		_ = h.gate.store.Release(PresenceLease+name, name)
	}, nil
}

// Approve grants what a request asks for. When it can't be given to all that it is for it is given to none, and the request
// stays open. ledger.ErrChanged is for one that is not what was shown.
func (h *Human) Approve(ctx context.Context, a Approval) (Approved, error) {
	c := h.call()
	if a.Scope == "" {
		a.Scope = policy.Askers
	}
	if !slices.Contains(policy.Scopes, a.Scope) {
		return Approved{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("scope %s", sandbox.Quote(string(a.Scope))), "is invalid: use one of %v", policy.Scopes)
	}
	r, err := c.gate.store.Request(a.ID)
	if err != nil {
		return Approved{Request: r}, err
	}
	usual, longest := c.grantFor(r)
	if a.For == 0 {
		a.For = usual
	}
	if a.For < time.Second || a.For > longest {
		return Approved{Request: r}, fault.About(sandbox.ErrInvalid, units.Duration(a.For), "is invalid: a grant may last 1s to %s here (egress.max_grant of the policy)", units.Duration(longest))
	}
	rule, err := egress.ParseDomainRule(r.Subject)
	if err != nil {
		return Approved{Request: r}, err
	}
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbAllowDomain, Owner: r.Owner, Sandbox: r.Sandbox, Needs: policy.Needs{Domains: []egress.Rule{rule}}})
	if err != nil {
		return Approved{Request: r}, err
	}
	if r, err = c.gate.store.Claim(a.ID, a.By, ledger.Seen(a.Seen, c.usual)); err != nil {
		return Approved{Request: r}, err
	}
	as := egress.Grant{From: fmt.Sprintf("%s%s, request %s", egress.Human, a.By, r.ID), Until: end(a.For, longest), Alone: a.Scope == policy.Askers}
	// From here on it goes to its end, or back, whoever gives up meanwhile.
	ctx = context.WithoutCancel(ctx)
	boxes, err := c.asking(ctx, r, a.Scope)
	if err == nil && a.Scope == policy.Once {
		err = c.giveOnce(ctx, boxes[0], r.ID, as, rule)
	} else if err == nil {
		err = c.give(ctx, b, boxes, as, rule)
	}
	if err != nil {
		err = errors.Join(err, c.gate.store.Unclaim(r.ID))
		if errors.Is(err, sandbox.ErrNotFound) {
			if _, e := c.gate.store.Withdraw(r.ID, "its sandboxes are gone"); e != nil {
				err = errors.Join(err, e)
			}
		}
		return Approved{Request: r}, err
	}
	out := Approved{}
	out.Request, err = c.gate.store.Grant(r.ID, a.By, a.Scope, as.Until, a.Answer)
	if err != nil {
		return out, fmt.Errorf("it is granted, and that could not be put down: %w", err)
	}
	for _, s := range boxes {
		out.Names = append(out.Names, s.Name)
	}
	if a.Scope != policy.Once {
		c.settle(ctx, r.Owner, r.Lineage, fmt.Sprintf("granted by %s (%s)", r.Subject, r.ID))
		if now, err := c.gate.backend.Egress(ctx, boxes[0].ID); err == nil {
			out.Standing = egress.Standing(now.Rules, rule)
		}
	}
	return out, nil
}

// asking are the sandboxes that an answer of a scope is for.
func (c *call) asking(ctx context.Context, r ledger.Request, scope policy.Scope) ([]sandbox.Sandbox, error) {
	list, err := c.read.List(ctx, r.Owner)
	if err != nil {
		return nil, err
	}
	boxes := slices.DeleteFunc(list, func(s sandbox.Sandbox) bool {
		return s.Lineage != r.Lineage || s.State == sandbox.Creating || s.Egress == egress.None || scope != policy.ThisLineage && !asks(r, s) || scope == policy.Once && s.State == sandbox.Stopped
	})
	if len(boxes) == 0 {
		return nil, fault.Errorf(sandbox.ErrNotFound, fault.Hint{}, "sandbox %q, which asked, not found: it is gone, or has no network any more", r.Sandbox)
	}
	if scope == policy.Once {
		return []sandbox.Sandbox{oneOf(r, boxes)}, nil
	}
	return boxes, nil
}

// oneOf picks the sandbox that a grant for one connection is for: the one whose connection waits, of several the latest, or
// else the one that asked first.
func oneOf(r ledger.Request, boxes []sandbox.Sandbox) sandbox.Sandbox {
	waits := time.Now()
	picked := -1
	for _, a := range r.Asked {
		if i := slices.IndexFunc(boxes, func(s sandbox.Sandbox) bool { return a.Is(s.Name, s.CreatedAt) }); i >= 0 && a.Held.After(waits) {
			picked, waits = i, a.Held
		}
	}
	if picked < 0 {
		picked = max(0, slices.IndexFunc(boxes, func(s sandbox.Sandbox) bool { return s.Name == r.Sandbox }))
	}
	return boxes[picked]
}

// asks tells whether a sandbox is one of those that asked.
func asks(r ledger.Request, s sandbox.Sandbox) bool {
	return s.Lineage == r.Lineage && slices.ContainsFunc(r.Asked, func(a ledger.Asker) bool { return a.Is(s.Name, s.CreatedAt) })
}

// settle ends the open requests of a lineage whose sandboxes may all reach what they asked for by now: those who wait hear
// why. What it can't end stays open, for a human to answer.
func (c *call) settle(ctx context.Context, owner, lineage, why string) {
	open, err := c.gate.store.Requests(owner, 0, ledger.RequestOpen)
	open = slices.DeleteFunc(open, func(r ledger.Request) bool { return r.Lineage != lineage })
	if err != nil || len(open) == 0 {
		return
	}
	list, err := c.read.List(ctx, owner)
	if err != nil {
		return
	}
	for _, r := range open {
		rule, err := egress.ParseDomainRule(r.Subject)
		if err != nil {
			continue
		}
		n, until := 0, time.Time{}
		all := true
		for _, s := range list {
			if asks(r, s) {
				by, has := s.Has(c.defaults.Presets, rule)
				all = all && has
				if n++; until.IsZero() || !by.Until.IsZero() && by.Until.Before(until) {
					until = by.Until
				}
			}
		}
		if n > 0 && all {
			_ = c.gate.store.Settle(r, why, until)
		}
	}
}

// withdraw ends the open requests of an owner's whose sandboxes are gone.
func (c *call) withdraw(ctx context.Context, owner string) error {
	open, err := c.gate.store.Requests(owner, 0, ledger.RequestOpen)
	if err != nil || len(open) == 0 {
		return err
	}
	list, err := c.read.List(ctx, owner)
	if err != nil {
		return err
	}
	for _, r := range open {
		if slices.ContainsFunc(list, func(s sandbox.Sandbox) bool { return s.Lineage == r.Lineage }) {
			continue
		}
		if _, err := c.gate.store.Withdraw(r.ID, "its sandboxes are gone"); err != nil && !errors.Is(err, ledger.ErrDecided) {
			return err
		}
	}
	return nil
}
