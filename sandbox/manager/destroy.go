package manager

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// Destroyed says what became of the names that a Destroy was asked for.
type Destroyed struct {
	Gone    []string         // ended and removed
	Missing []string         // not there to begin with
	Failed  map[string]error // still there
}

// Destroy ends and removes sandboxes with their checkpoints, half-made ones too. What is not there is no failure.
func (m *Manager) Destroy(ctx context.Context, caller Caller, names []string) (Destroyed, error) {
	c := m.begin(caller)
	if len(names) == 0 {
		return Destroyed{}, fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.ListSandboxes}, "names is empty: name the sandboxes to destroy")
	}
	for _, name := range names {
		if err := sandbox.CheckName(name[strings.LastIndex(name, "/")+1:]); err != nil {
			return Destroyed{}, err
		}
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbDestroySandbox, Owner: c.Owner, Sandbox: strings.Join(names, " ")})
	if err != nil {
		return Destroyed{}, err
	}
	d := Destroyed{Failed: map[string]error{}}
	var mu sync.Mutex
	sideBySide(len(names), parallel, func(i int) {
		whose, own, err := c.whose(c.Owner, names[i])
		var s sandbox.Sandbox
		if err == nil {
			s, err = b.Get(ctx, whose, own)
		}
		if err == nil {
			err = b.on(ctx, s, func(id string) error { return b.Destroy(ctx, id) })
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			d.Gone = append(d.Gone, names[i])
		case errors.Is(err, sandbox.ErrNotFound):
			d.Missing = append(d.Missing, names[i])
		default:
			d.Failed[names[i]] = err
		}
	})
	slices.Sort(d.Gone)
	slices.Sort(d.Missing)
	if len(d.Gone) > 0 {
		_ = c.withdraw(ctx, c.Owner) // a request that stays open is found to be of nobody when it is approved
	}
	return d, nil
}
