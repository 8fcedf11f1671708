package manager

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// actions are what a permit lets a call have the backend do without a claim: all that takes nothing of a quota.
type actions interface {
	sandbox.FilesBackend
	List(ctx context.Context, owner string) ([]sandbox.Sandbox, error)
	Tree(ctx context.Context, top string, fresh bool) ([]sandbox.Sandbox, error)
	Relatives(ctx context.Context, owner, lineage string) ([]sandbox.Sandbox, error)
	Get(ctx context.Context, owner, name string) (sandbox.Sandbox, error)
	Destroy(ctx context.Context, id string) error
	SetState(ctx context.Context, id string, state sandbox.State) error
	SetEgress(ctx context.Context, id string, edit sandbox.EgressEdit) (cut int, err error)
	Egress(ctx context.Context, id string) (sandbox.Egress, error)
	Denials(ctx context.Context, id string, within time.Duration) ([]sandbox.Denial, error)
	Rename(ctx context.Context, id, name string) error
	Resize(ctx context.Context, id string, l sandbox.Limits) error
	SetExpiry(ctx context.Context, id string, at time.Time) error
	Checkpoints(ctx context.Context, id string) ([]sandbox.Checkpoint, error)
	DeleteCheckpoint(ctx context.Context, id, label string) error
	Restore(ctx context.Context, id, label string) (sandbox.Sandbox, error)
	Touch(ctx context.Context, id string) (asleep bool, err error)
	Wake(ctx context.Context, id string) error
	Exec(ctx context.Context, id string, c sandbox.Command) (exitCode int, err error)
	Sessions(ctx context.Context, id, user string) ([]sandbox.Session, error)
	StartRun(ctx context.Context, id string, c sandbox.Command, timeout time.Duration) (run string, err error)
	Runs(ctx context.Context, id string) ([]sandbox.Run, error)
	Feed(ctx context.Context, id, run string, f sandbox.Feed) error
	LookAtRun(ctx context.Context, id, run string, q sandbox.RunQuery) (sandbox.Run, error)
}

// permit is the backend, for one call that the policy lets pass. What takes of a quota goes by create and checkpoint, within
// what the call has claimed, and until done.
type permit struct {
	actions
	verdict policy.Verdict // what it asks a human about must not be done
	gate    *gate
	takes   *reservation // nil where it claimed nothing, and once it is done
}

// errUnclaimed is a fault of ours: a call makes more than it was vetted for.
var errUnclaimed = errors.New("that is more than the policy was asked for; nothing was made")

// reservation is what a call that is under way takes of its owner's quota.
type reservation struct {
	owner string
	takes policy.Usage
	names map[string]bool // of sandboxes that it is making, which would count twice once they are listed
	id    int64           // in the ledger, for other processes
}

// list are the names in the order in which they are kept.
func (r *reservation) list() []string { return slices.Sorted(maps.Keys(r.names)) }

// create makes a sandbox of what the call has set aside. Of several calls of this process that would make one of a name,
// one does: else the sandbox that one made would be taken for another's that is still being made, and not be counted.
func (p *permit) create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := p.claim(ctx, spec); err != nil {
		return sandbox.Sandbox{}, err
	}
	made, err := p.gate.backend.Create(ctx, spec)
	if err != nil {
		p.gate.mu.Lock()
		defer p.gate.mu.Unlock()
		if p.takes != nil {
			delete(p.takes.names, spec.Name)
		}
	}
	return made, err
}

// checkpoint makes a checkpoint of what the call has set aside.
func (p *permit) checkpoint(ctx context.Context, id, label, description string) (sandbox.Checkpoint, error) {
	p.gate.mu.Lock()
	claimed := p.takes != nil && p.takes.takes.Checkpoints > 0
	p.gate.mu.Unlock()
	if !claimed {
		return sandbox.Checkpoint{}, errUnclaimed
	}
	return p.gate.backend.CreateCheckpoint(ctx, id, label, description)
}

// on does something to a sandbox. One that another call restored meanwhile has another ID then, to which it is done.
func (p *permit) on(ctx context.Context, s sandbox.Sandbox, do func(id string) error) error {
	for try := 0; ; try++ {
		err := do(s.ID)
		if !errors.Is(err, sandbox.ErrNotFound) || try == 20 {
			return err
		}
		all, e := p.Relatives(ctx, s.Owner, s.Lineage) // which no event need have told of
		i := slices.IndexFunc(all, func(now sandbox.Sandbox) bool { return now.Name == s.Name })
		if e != nil || i < 0 {
			return err
		}
		s = all[i]
		time.Sleep(20 * time.Millisecond) // what is gone may be listed for a moment
	}
}

func (p *permit) claim(ctx context.Context, spec sandbox.Spec) error {
	p.gate.taking.Lock()
	defer p.gate.taking.Unlock()
	p.gate.mu.Lock()
	taken := slices.ContainsFunc(p.gate.reserved, func(r *reservation) bool { return r.owner == spec.Owner && r.names[spec.Name] })
	p.gate.mu.Unlock()
	if !taken {
		_, err := p.Get(ctx, spec.Owner, spec.Name)
		if err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			return err
		}
		taken = err == nil
	}
	if taken {
		return fault.New(sandbox.ErrExists, fault.Sandbox(spec.Name), "", fault.Hint{Action: fault.OtherName, Name: spec.Name})
	}
	p.gate.mu.Lock()
	if p.takes == nil || len(p.takes.names) >= p.takes.takes.Sandboxes {
		p.gate.mu.Unlock()
		return errUnclaimed
	}
	p.takes.names[spec.Name] = true
	id, names := p.takes.id, p.takes.list()
	p.gate.mu.Unlock()
	_ = p.gate.store.Confirm(id, names) // else other processes count it twice for a moment
	return nil
}

// done ends what the call has set aside: what it made is there to be counted.
func (p *permit) done() {
	p.gate.mu.Lock()
	over := p.takes
	p.gate.reserved = slices.DeleteFunc(p.gate.reserved, func(r *reservation) bool { return r == over })
	p.takes = nil
	p.gate.mu.Unlock()
	if over != nil {
		_ = p.gate.store.Made(over.id) // else it counts until it is over by itself
	}
}
