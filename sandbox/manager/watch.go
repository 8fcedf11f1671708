package manager

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Of several servers that share a gateway and a store, one watches it: it has a lease on that.
const (
	watchLease = 6 * time.Second // a process that died has it so long
	watchEvery = 2 * time.Second
	countEvery = 5 * time.Second // connections are on record as counts, put down so often
	mostCounts = 200             // different ones in that time; more are put down as one
	fewCounts  = 20              // of one sandbox, when there are more than mostCounts
)

// How many held connections are looked at at once. More are denied.
const (
	maxHolding      = 32
	maxHoldingOfOne = 8 // of one sandbox
)

// places are what is shared out among sandboxes.
type places struct {
	mu  sync.Mutex
	all int
	of  map[string]int // by ID of the sandbox
}

// take takes a place, if there is one within the bounds. done gives it back.
func (p *places) take(id string, most, mostOfOne int) (done func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= most || p.of[id] >= mostOfOne {
		return nil, false
	}
	if p.of == nil {
		p.of = map[string]int{}
	}
	p.all++
	p.of[id]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.of[id]--; p.of[id] == 0 {
			delete(p.of, id)
		}
	}, true
}

// PresenceLease begins the name of a lease that says: a human looks at requests. While nobody has one, no connection is
// held, for nobody would answer.
const PresenceLease = "human:"

// KeepWatched raises requests for connections that no rule allows, holds them for the answer, and puts connections on
// record, until ctx ends. say hears of what failed.
func (m *Manager) KeepWatched(ctx context.Context, say func(error)) {
	whose := rand.Text()
	name := "watch:" + m.gate.backend.Gateway()
	defer func() {
		if err := m.gate.store.Release(name, whose); err != nil {
			say(err)
		}
	}()
	said := ""
	for ctx.Err() == nil {
		mine, err := m.gate.store.Lease(name, whose, watchLease)
		if err == nil && mine {
			err = m.watch(ctx, func() (bool, error) { return m.gate.store.Lease(name, whose, watchLease) }, say)
		}
		// What stays wrong is said once.
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			say(fmt.Errorf("connections are neither watched nor held: %w", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchEvery):
		}
	}
}

// watch watches for as long as it keeps the lease.
func (m *Manager) watch(ctx context.Context, keep func() (bool, error), say func(error)) error {
	ctx, cancel := context.WithCancel(ctx)
	counts := &counts{m: m}
	var working sync.WaitGroup
	defer func() {
		cancel()
		working.Wait()
		counts.put()
	}()
	working.Go(func() {
		tick, put := time.NewTicker(watchEvery), time.NewTicker(countEvery)
		defer tick.Stop()
		defer put.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-put.C:
				counts.put()
			case <-tick.C:
				if mine, err := keep(); err != nil || !mine {
					cancel() // another one has it now
					return
				}
			}
		}
	})
	var holding places
	return m.gate.backend.Watch(ctx, func(c sandbox.Connection) {
		if c.Fate != sandbox.ConnectionHeld {
			counts.add(ctx, &working, c)
			return
		}
		// Of so many at once that nobody can look at them the rest is denied.
		if done, ok := holding.take(c.ID, maxHolding, maxHoldingOfOne); ok {
			working.Go(func() {
				defer done()
				if err := m.held(ctx, counts, c); err != nil && ctx.Err() == nil && !errors.Is(err, sandbox.ErrNotFound) {
					say(fmt.Errorf("a connection of sandbox %s to %s: %w", c.Sandbox, c.Where(), err))
				}
			})
		}
	})
}

// held decides about a connection that no rule allows.
func (m *Manager) held(ctx context.Context, counts *counts, c sandbox.Connection) error {
	rule, err := egress.ParseDomainRule(c.Where())
	if err != nil {
		return err
	}
	// Others who share the gateway, and keep their records elsewhere, look after what is theirs.
	if ours, err := m.gate.store.Knows(c.Owner); err != nil || !ours {
		return err
	}
	by := m.begin(Agent(c.Owner))
	v, err := by.set.Vet(policy.Call{Verb: policy.VerbAllowDomain, Owner: c.Owner, Sandbox: c.Sandbox, Needs: policy.Needs{Domains: []egress.Rule{rule}}})
	if err != nil {
		return err
	}
	refuse := func() error { return m.gate.backend.Hold(ctx, c.ID, c.Domain, c.Port, 0) }
	s, err := m.read.Get(ctx, c.Owner, c.Sandbox)
	if err != nil || s.ID != c.ID || v.Decision == policy.Deny {
		return errors.Join(err, refuse())
	}
	if v.Decision == policy.Allow && !s.Denied(rule) {
		_, err := by.change(ctx, by.unvetted(), s, by.terms(c.Owner, "policy, egress.allow", 0), []egress.Rule{rule})
		if err == nil {
			by.fired(ctx, s, []egress.Rule{rule})
		}
		return errors.Join(err, refuse()) // it passes already, when it was granted
	}
	present, err := m.gate.store.Held(PresenceLease)
	if err != nil {
		return errors.Join(err, refuse())
	}
	hold := by.rules(c.Owner).Hold()
	if present = present && hold > 0; present {
		err = m.gate.backend.Hold(ctx, c.ID, c.Domain, c.Port, hold)
	}
	until := time.Now().Add(hold)
	ask := ledger.Request{Owner: c.Owner, Sandbox: c.Sandbox, Born: s.CreatedAt, Lineage: c.Lineage, Subject: rule.String(), Source: ledger.ByConnection}
	var call string
	ask.Process, call = m.process(ctx, c)
	if present {
		ask.Held = until
	} else {
		err = refuse()
	}
	counts.one(c, ask.Process, call)
	r, _, raised := m.gate.store.Raise(ask)
	if raised != nil || r.State.Ended() {
		if errors.Is(raised, ledger.ErrTooManyRequests) {
			raised = nil // a sandbox that reaches for all and everything; the record has it
		}
		return errors.Join(err, raised, refuse())
	}
	return err
}

// processTime bounds how long a sandbox may take to say whose a connection is, and with that how long the connection waits.
const processTime = 400 * time.Millisecond

// process tells whose a connection is, as its sandbox says, which can be seen only while it is there. One that doesn't say
// keeps nothing back.
func (m *Manager) process(ctx context.Context, c sandbox.Connection) (command, call string) {
	ctx, cancel := context.WithTimeout(ctx, processTime)
	defer cancel()
	command, call, _ = m.gate.backend.Process(ctx, c.ID, c.From)
	return command, call
}

// counts adds up connections that are alike.
type counts struct {
	m       *Manager
	looking places // for asking sandboxes whose a connection is
	mu      sync.Mutex
	of      map[ledger.Record]*tally
	ofOne   map[string]int // how many of them are of one sandbox, by owner and name
}

// tally is how many there were, and whose the first one was.
type tally struct {
	count         int
	process, call string
}

func (n *counts) add(ctx context.Context, working *sync.WaitGroup, c sandbox.Connection) {
	if c.Fate == sandbox.ConnectionEnded { // it was allowed, and is counted as that
		return
	}
	if ours, err := n.m.gate.store.Knows(c.Owner); err != nil || !ours {
		return
	}
	first := n.one(c, "", "")
	if first == nil || c.Fate != sandbox.ConnectionAllowed { // the others are over already
		return
	}
	if done, ok := n.looking.take(c.ID, 4, 1); ok { // else the next one may tell
		working.Go(func() {
			defer done()
			process, call := n.m.process(ctx, c)
			n.mu.Lock()
			defer n.mu.Unlock()
			first.process, first.call = process, call
		})
	}
}

// one counts a connection, and returns the tally when it is the first in it. A sandbox that reaches for ever other places
// doesn't fill the record: those above a number are one line.
func (n *counts) one(c sandbox.Connection, process, call string) (first *tally) {
	r := ledger.Record{
		Kind: ledger.Connected, Owner: c.Owner, Sandbox: c.Sandbox, Lineage: c.Lineage, Verdict: string(c.Fate), Target: c.Where(), Detail: c.Reason, Rule: c.Once, Channel: "gateway", Process: process, Call: call,
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	whose := c.Owner + "/" + c.Sandbox
	if n.of[r] == nil && len(n.of) >= mostCounts && n.ofOne[whose] >= fewCounts {
		r.Target, r.Detail, r.Process, r.Call = "many places", "", "", ""
	}
	if n.of == nil {
		n.of, n.ofOne = map[ledger.Record]*tally{}, map[string]int{}
	}
	if n.of[r] != nil {
		n.of[r].count += max(c.Count, 1)
		return nil
	}
	first = &tally{count: max(c.Count, 1), process: r.Process, call: r.Call}
	n.of[r] = first
	n.ofOne[whose]++
	return first
}

// put puts down what there is.
func (n *counts) put() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for r, t := range n.of {
		r.Count, r.Process, r.Call = t.count, t.process, t.call
		n.m.gate.store.Add(r)
	}
	n.of = nil
}
