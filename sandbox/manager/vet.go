package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/owner"
	"pixels/policy"
	"pixels/policy/approver"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// reader is what of a Backend serves to see what a call is about, before it is vetted: what the caller itself has.
type reader interface {
	List(ctx context.Context, owner string) ([]sandbox.Sandbox, error)
	Tree(ctx context.Context, top string, fresh bool) ([]sandbox.Sandbox, error)
	Relatives(ctx context.Context, owner, lineage string) ([]sandbox.Sandbox, error)
	Get(ctx context.Context, owner, name string) (sandbox.Sandbox, error)
	Checkpoints(ctx context.Context, id string) ([]sandbox.Checkpoint, error)
	CheckpointsCost(ctx context.Context) bool
	CheckpointCost(ctx context.Context, id string) (int64, error)
}

// gate is the way to the whole Backend, which leads through the policy.
type gate struct {
	backend sandbox.Backend
	policy  *policy.Policy
	store   *ledger.Store // nil where there is none: then nothing is on record

	// taking is held by one call that takes of a quota at a time, while what there is is counted, which asks the backend.
	taking sync.Mutex

	mu       sync.Mutex
	reserved []*reservation
	told     map[string]bool // what first was asked about
}

// first tells whether it is asked for the first time about something that is to be on record once, as the end of a run.
func (g *gate) first(what string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.told[what] {
		return false
	}
	if g.told == nil || len(g.told) > 10_000 {
		g.told = map[string]bool{}
	}
	g.told[what] = true
	return true
}

// Trial is the error by which a call ends that only wanted to know its verdict.
type Trial struct{ policy.Verdict }

// Error says the verdict.
func (t Trial) Error() string { return "the verdict is " + string(t.Decision) }

// Approval is what the policy asks of who approves.
func (m *Manager) Approval() policy.Approval { return m.gate.policy.Now().Approval() }

// Policy is the one that is in force.
func (m *Manager) Policy() *policy.Set { return m.gate.policy.Now() }

// Approver is what proves that a human approves.
func (m *Manager) Approver() *approver.Approver { return approver.Beside(m.gate.store.Path()) }

// widens tells whether a human's call gives a sandbox more than it had.
func widens(c policy.Call) bool { return len(c.Domains) > 0 || c.Mode != "" && c.Mode != egress.None }

// vet puts a call to the policy, and returns the backend to carry it out. All that the Manager has a backend do goes
// through here, but for what servers do by themselves. What it takes of the owner's quota is set aside until the permit's
// done, which the caller of such a call must see to.
func (c *call) vet(ctx context.Context, ask policy.Call) (*permit, error) {
	ask.Human, ask.Caps = c.human, c.Caps
	g := c.gate
	if c.human && !c.Trial && !c.proven && widens(ask) && c.set.Approval() != policy.Terminal {
		return nil, fmt.Errorf("%w: the policy asks for a %s of who approves", approver.ErrProof, c.set.Approval())
	}
	takes := policy.Usage{Sandboxes: ask.Sandboxes, Checkpoints: ask.Checkpoints, CPU: ask.CPU, Memory: ask.Memory, Disk: ask.Disk}
	var mine int64 // reservation in the ledger
	if takes != (policy.Usage{}) && !c.Trial {
		g.taking.Lock()
		defer g.taking.Unlock()
		var err error
		// Where the ledger has broken down, what this process knows of must do: but for tokens, which other servers know, too.
		if mine, err = g.store.Reserve(ask.Owner, takes); err != nil && ask.Caps != nil {
			return nil, fmt.Errorf("count what there is: %w", err)
		}
		defer func() {
			if mine != 0 { // it was not taken
				_ = g.store.Made(mine)
			}
		}()
	}
	v, err := c.decide(ctx, ask, mine)
	if !c.Trial {
		c.record(decision(ask, v, err))
	}
	switch {
	case err != nil:
		return nil, err
	case c.Trial:
		return nil, Trial{v}
	case v.Decision == policy.Deny:
		return nil, fault.Errorf(sandbox.ErrDenied, v.Hint, "%s (%s): %s", sandbox.ErrDenied, v.Rule, v.Reason)
	}
	p := &permit{actions: g.backend, verdict: v, gate: g}
	if takes != (policy.Usage{}) {
		if err := g.store.Confirm(mine, nil); err != nil {
			return nil, fmt.Errorf("count what there is: %w", err)
		}
		p.takes = &reservation{owner: ask.Owner, takes: takes, names: map[string]bool{}, id: mine}
		mine = 0
		g.mu.Lock()
		defer g.mu.Unlock()
		g.reserved = append(g.reserved, p.takes)
	}
	return p, nil
}

// undecided is how long one waits for calls of other processes, which are about to take of the same quota, to be decided.
const undecided = 2 * time.Second

// decide puts a call to the policy. Where it is refused while earlier ones of other processes are not decided yet, they are waited for: what
// they are refused counts for nothing.
func (c *call) decide(ctx context.Context, ask policy.Call, mine int64) (v policy.Verdict, err error) {
	for late := time.Now().Add(undecided); ; {
		pending := false
		ask.Usage = func(top string) (policy.Usage, error) {
			u, some, err := c.usage(ctx, top, ask, mine)
			pending = pending || some
			return u, err
		}
		if v, err = c.set.Vet(ask); err != nil || v.Decision != policy.Deny || !pending || time.Now().After(late) {
			return v, err
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// unvetted is a permit for what no call asks for: a human's answer, or the policy's own.
func (c *call) unvetted() *permit { return &permit{actions: c.gate.backend, gate: c.gate} }

// decision is the record of a verdict.
func decision(c policy.Call, v policy.Verdict, err error) ledger.Record {
	r := ledger.Record{Kind: ledger.Decided, Owner: c.Owner, Sandbox: c.Sandbox, Tool: string(c.Verb), Verdict: string(v.Decision), Rule: v.Rule, Detail: v.Reason}
	if err != nil {
		r.Verdict, r.Detail = "error", err.Error()
	}
	var targets []string
	for _, d := range c.Domains {
		targets = append(targets, d.String())
	}
	for _, d := range c.Denied {
		targets = append(targets, "not "+d.String())
	}
	for _, text := range []string{string(c.Mode), c.HostPath} {
		if text != "" {
			targets = append(targets, text)
		}
	}
	r.Target = strings.Join(targets, " ")
	return r
}

// Permit vets a call that needs no backend.
func (m *Manager) Permit(ctx context.Context, caller Caller, verb policy.Verb) error {
	c := m.begin(caller)
	_, err := c.vet(ctx, policy.Call{Verb: verb, Owner: c.Owner})
	return err
}

// usage counts what an owner has, together with those below, and with what calls under way have set aside: those of other processes as
// far as they began before mine. pending tells that some of those may still be refused.
func (c *call) usage(ctx context.Context, top string, ask policy.Call, mine int64) (u policy.Usage, pending bool, err error) {
	making := map[[2]string]bool{}
	c.gate.mu.Lock()
	for _, r := range c.gate.reserved {
		if owner.Under(r.owner, top) {
			add(&u, r.takes)
			for name := range r.names {
				making[[2]string{r.owner, name}] = true
			}
		}
	}
	c.gate.mu.Unlock()
	var others []ledger.Reservation
	recent := false
	if mine != 0 {
		if others, recent, err = c.gate.store.Reserved(top, mine); err != nil {
			return u, false, fmt.Errorf("count what there is: %w", err)
		}
	}
	for _, r := range others {
		add(&u, r.Takes)
		pending = pending || r.Pending
		for _, name := range r.Names {
			making[[2]string{r.Owner, name}] = true
		}
	}
	list, err := c.read.Tree(ctx, top, recent)
	if err != nil {
		return u, pending, err
	}
	for _, s := range list {
		if !making[[2]string{s.Owner, s.Name}] {
			add(&u, policy.Usage{Sandboxes: 1, CPU: s.Limits.CPU, Memory: s.Limits.Memory, Disk: s.Limits.Disk})
		}
	}
	costs := ask.Disk > 0 && c.read.CheckpointsCost(ctx)
	if ask.Checkpoints == 0 && !costs {
		return u, pending, nil
	}
	counts, errs := make([]int, len(list)), make([]error, len(list))
	disk := make([]int64, len(list))
	sideBySide(len(list), parallel, func(i int) {
		have, err := c.read.Checkpoints(ctx, list[i].ID)
		for _, c := range have {
			disk[i] += c.Cost
		}
		if counts[i] = len(have); !errors.Is(err, sandbox.ErrNotFound) { // it was destroyed meanwhile
			errs[i] = err
		}
	})
	for i, n := range counts {
		u.Checkpoints += n
		u.Disk += disk[i]
	}
	return u, pending, errors.Join(errs...)
}

func add(u *policy.Usage, more policy.Usage) {
	u.Sandboxes += more.Sandboxes
	u.Checkpoints += more.Checkpoints
	u.CPU += more.CPU
	u.Memory += more.Memory
	u.Disk += more.Disk
}
