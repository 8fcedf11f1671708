package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pixels/egress"
	"pixels/policy"
)

// Everybodys returns the sandboxes of all owners whose calls came by this installation, for a human.
func (m *Manager) Everybodys(ctx context.Context) (out []Sandbox, err error) {
	if !m.human {
		return nil, errNotHuman
	}
	owners, err := m.gate.store.Owners()
	if err != nil {
		return nil, err
	}
	for _, owner := range owners {
		list, err := m.read.List(ctx, owner)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// Panic takes the network from a sandbox, or from all of its lineage, at once: its egress becomes none, and what is open
// is cut. It returns the names of those that it was taken from.
func (m *Manager) Panic(ctx context.Context, owner, name string, lineage bool) (names []string, err error) {
	if !m.human {
		return nil, errNotHuman
	}
	s, err := m.get(ctx, owner, name)
	if err != nil {
		return nil, err
	}
	b, err := m.vet(ctx, policy.Call{Name: "egress", Owner: owner, Sandbox: name, Mode: egress.None})
	if err != nil {
		return nil, err
	}
	boxes := []Sandbox{s}
	if lineage {
		if boxes, err = m.read.List(ctx, owner); err != nil {
			return nil, err
		}
		boxes = slices.DeleteFunc(boxes, func(other Sandbox) bool { return other.Lineage != s.Lineage })
	}
	// Whoever gives up meanwhile: all of them.
	ctx = context.WithoutCancel(ctx)
	errs := make([]error, len(boxes))
	sideBySide(len(boxes), parallel, func(i int) {
		_, err := m.editEgress(ctx, b, boxes[i], func(_ egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			return egress.None, own, nil
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			errs[i] = fmt.Errorf("sandbox %s: %w", boxes[i].Name, err)
		}
	})
	for i, s := range boxes {
		if errs[i] == nil {
			names = append(names, s.Name)
		}
	}
	return names, errors.Join(errs...)
}

// Records returns what is on record, for a human.
func (m *Manager) Records(q policy.Query) ([]policy.Record, error) {
	if !m.human {
		return nil, errNotHuman
	}
	return m.gate.store.Records(q)
}

// RequestsVersion changes whenever a request does.
func (m *Manager) RequestsVersion() (string, error) { return m.gate.store.Version() }

// GrantFor is how long the grant of a request lasts unless its approver says otherwise, which is what the agent wants where
// it said so, and the longest that it may.
func (m *Manager) GrantFor(r policy.Request) (usual, longest time.Duration) {
	usual, longest = m.gate.policy.Now().For(r.Owner).GrantFor()
	if wanted := r.Wanted.Duration(); wanted > 0 {
		usual = wanted
	}
	return min(usual, longest), longest
}
