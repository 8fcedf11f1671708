package manager

import (
	"context"

	"pixels/egress"
	"pixels/policy"
	"pixels/sandbox"
)

// Glimpse is what a shell offers of a sandbox while somebody types.
type Glimpse struct {
	Name        string
	State       sandbox.State
	Checkpoints []string // labels
	Domains     []string // that it was allowed
}

// glancer is what a glance takes of a backend.
type glancer interface {
	List(ctx context.Context, owner string) ([]sandbox.Sandbox, error)
	Checkpoints(ctx context.Context, id string) ([]sandbox.Checkpoint, error)
}

// Glance has a look at what an owner has in a backend. It changes nothing and is on no record. of names the sandbox
// whose checkpoints are wanted, * all; they are left out of one that goes meanwhile.
func Glance(ctx context.Context, b glancer, owner, of string) ([]Glimpse, error) {
	all, err := b.List(ctx, owner)
	out := make([]Glimpse, len(all))
	sideBySide(len(all), parallel, func(i int) {
		s, g := all[i], &out[i]
		g.Name, g.State = s.Name, s.State
		for _, grant := range egress.Lasting(s.Rules) {
			if !grant.Deny {
				g.Domains = append(g.Domains, grant.Rule.String())
			}
		}
		if of == "*" || of == s.Name {
			have, _ := b.Checkpoints(ctx, s.ID)
			for _, c := range have {
				g.Checkpoints = append(g.Checkpoints, c.Label)
			}
		}
	})
	return out, err
}

// Glance is that of an owner who may list what they have; of another there is nothing to see.
func (m *Manager) Glance(ctx context.Context, owner, of string) ([]Glimpse, error) {
	c := m.begin(Agent(owner))
	v, err := c.set.Vet(policy.Call{Verb: policy.VerbListSandboxes, Owner: owner})
	if err != nil || v.Decision != policy.Allow {
		return []Glimpse{}, err
	}
	return Glance(ctx, c.read, owner, of)
}
