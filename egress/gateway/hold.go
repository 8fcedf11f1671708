package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pixels/egress"
)

// A connection that no rule allows is held when somebody watches who answers for such: they put it to a human, and say how
// long to hold it. It goes through when a change of the policy allows it meanwhile.
const (
	answerTime = time.Second // until who watches has said how long to hold it
	maxHeld    = 64          // of one sandbox at once; more are denied as ever
	// MaxHold is the longest that a connection is held.
	MaxHold = 5 * time.Minute
)

// answer is what was said of connections to one place that are held.
type answer struct{ at, until time.Time }

// admit lets a connection through when the policy allows it, and uses a grant up that is for one. g.mu is held.
func (f *flow) admit() bool {
	w := f.w
	if f.name == "" || off(ProtectNames) {
		return f.allowed(w.policy)
	}
	by, ok := w.policy.Allows(f.name, f.port)
	if !ok || by.Once == "" {
		return ok
	}
	spent := w.policy.Spend(by.Once)
	// On the disk first: after a restart it must be as used up as now.
	if err := f.g.store.save(w.number, kept{Sandbox: w.sandbox, Policy: spent, Mark: w.mark}); err != nil {
		f.g.log.Error().Err(err).Str("sandbox", w.sandbox).Msg("use a grant up")
		return false
	}
	w.policy, f.once = spent, by.Once
	return true
}

// GrantOnce gives a sandbox a grant for one connection, as long as it is on the wire with that index. Nobody else keeps it:
// it ends with the wire, and is rather lost than used twice. One whose end is over is taken back.
func (g *Gateway) GrantOnce(sandbox string, index int, grant egress.Grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	w, err := g.find(sandbox)
	switch {
	case err != nil:
		return err
	case w.index != index:
		return fmt.Errorf("%s is on another wire now: %w", sandbox, ErrNoSandbox)
	case w.policy.Mode != egress.Agent && w.policy.Mode != egress.Allowlist:
		return fmt.Errorf("in the mode %s there is nothing to grant", w.policy.Mode)
	}
	policy := w.policy
	same := func(g egress.Grant) bool { return g.Once == grant.Once }
	over := !time.Now().Before(grant.Until)
	switch {
	case over:
		policy.Rules = slices.DeleteFunc(slices.Clone(policy.Rules), same)
	case slices.ContainsFunc(policy.Rules, same):
		return nil // that was done before
	default:
		policy.Rules = append(slices.Clone(policy.Rules), grant)
	}
	if err = g.store.save(w.number, kept{Sandbox: w.sandbox, Policy: policy, Mark: w.mark}); err != nil {
		err = fmt.Errorf("keep the grant: %w", err)
		if !over {
			return err
		}
		// What is taken back is so now, and after a restart the wire had better be closed.
		err = errors.Join(err, g.store.remove(w.number))
	}
	_, err2 := g.enforce(w, policy, w.mark)
	return errors.Join(err, err2)
}

// once returns a sandbox's grants for one connection.
func (g *Gateway) once(sandbox string) []egress.Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	w, err := g.find(sandbox)
	if err != nil {
		return nil
	}
	return onlyOnce(w.policy.Rules)
}

// onlyOnce are the rules that are for one connection, and have not ended.
func onlyOnce(rules []egress.Grant) []egress.Grant {
	return slices.DeleteFunc(egress.Lasting(rules), func(g egress.Grant) bool { return g.Once == "" })
}

// withOnce returns a policy with what a wire has of grants for one connection, and no other ones. Who has no network loses them.
func (w *wire) withOnce(policy egress.Policy) egress.Policy {
	policy.Rules = slices.DeleteFunc(slices.Clone(policy.Rules), func(g egress.Grant) bool { return g.Once != "" })
	if policy.Mode != egress.None {
		policy.Rules = append(policy.Rules, onlyOnce(w.policy.Rules)...)
	}
	return policy
}

// hold keeps a connection until the policy allows it, which hold tells, or the time is over that who watches gave it.
func (f *flow) hold(ctx context.Context) bool {
	g, w := f.g, f.w
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.answering == 0 || w.state != Taken || w.held >= maxHeld || w.policy.Mode == egress.None {
		return false
	}
	w.held++
	defer func() { w.held-- }()
	began := time.Now()
	deadline := began.Add(answerTime)
	where := egress.Ask(f.name, f.port)
	g.tell(w, Event{Verdict: Held, Domain: f.name, Port: f.port, From: f.from, Reason: "no rule allows it"})
	for {
		if w.state == Taken && f.admit() {
			f.passed = true
			return true
		}
		if a, ok := w.answers[where]; ok && !a.at.Before(began) {
			deadline = a.until
		}
		left := time.Until(deadline)
		if left <= 0 || w.state != Taken || ctx.Err() != nil {
			return false
		}
		changed := w.changed
		g.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		g.mu.Lock()
	}
}

// Hold says how long connections of a sandbox to a name are to be held that wait now: until d from now, and not at all any
// more with 0. A policy that allows them lets them through at any time.
func (g *Gateway) Hold(sandbox, domain string, port uint16, d time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	w, err := g.find(sandbox)
	if err != nil {
		return err
	}
	now := time.Now()
	for where, a := range w.answers { // what was said before is of no use to what comes
		if now.After(a.until) {
			delete(w.answers, where)
		}
	}
	w.answers[egress.Ask(domain, port)] = answer{now, now.Add(min(d, MaxHold))}
	w.wake()
	return nil
}

// wake has those look again who wait for something of the wire. g.mu is held.
func (w *wire) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// expire cuts connections whose grant has ended, and sees to the next end. g.mu is held.
func (g *Gateway) expire(w *wire) {
	if w.expiry != nil {
		w.expiry.Stop()
		w.expiry = nil
	}
	now := time.Now()
	next := w.policy.Ends(now)
	if w.state != Taken || next.IsZero() {
		return
	}
	w.expiry = time.AfterFunc(max(next.Sub(now), 10*time.Millisecond), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.cutDenied(w)
		g.expire(w)
	})
}

// cutDenied ends the connections that the policy doesn't allow, and counts them. g.mu is held.
func (g *Gateway) cutDenied(w *wire) (cut int) {
	for f := range w.flows {
		if f.passed && !f.allowed(w.policy) && g.end(w, f) {
			cut++
		}
	}
	return cut
}
