package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

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
	Tree(ctx context.Context, top string) ([]sandbox.Sandbox, error)
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
	if takes != (policy.Usage{}) {
		g.taking.Lock()
		defer g.taking.Unlock()
	}
	ask.Usage = func(top string) (policy.Usage, error) { return c.usage(ctx, top, ask) }
	v, err := c.set.Vet(ask)
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
		p.takes = &reservation{owner: ask.Owner, takes: takes, names: map[string]bool{}}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.reserved = append(g.reserved, p.takes)
	}
	return p, nil
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

// usage counts what an owner has, together with those below, and with what calls under way have set aside.
func (c *call) usage(ctx context.Context, top string, ask policy.Call) (u policy.Usage, err error) {
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
	list, err := c.read.Tree(ctx, top)
	if err != nil {
		return u, err
	}
	for _, s := range list {
		if !making[[2]string{s.Owner, s.Name}] {
			add(&u, policy.Usage{Sandboxes: 1, CPU: s.Limits.CPU, Memory: s.Limits.Memory, Disk: s.Limits.Disk})
		}
	}
	costs := ask.Disk > 0 && c.read.CheckpointsCost(ctx)
	if ask.Checkpoints == 0 && !costs {
		return u, nil
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
	return u, errors.Join(errs...)
}

func add(u *policy.Usage, more policy.Usage) {
	u.Sandboxes += more.Sandboxes
	u.Checkpoints += more.Checkpoints
	u.CPU += more.CPU
	u.Memory += more.Memory
	u.Disk += more.Disk
}
