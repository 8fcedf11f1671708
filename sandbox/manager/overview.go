package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Everybodys returns the sandboxes of all owners whose calls came by this installation, for a human.
func (h *Human) Everybodys(ctx context.Context) (out []sandbox.Sandbox, err error) {
	c := h.call()
	owners, err := c.gate.store.Owners()
	if err != nil {
		return nil, err
	}
	for _, owner := range owners {
		list, err := c.read.List(ctx, owner)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// Panic takes the network from a sandbox, or from all of its lineage, at once: its egress becomes none, and what is open
// is cut. It returns the names of those that it was taken from.
func (h *Human) Panic(ctx context.Context, owner, name string, lineage bool) (names []string, err error) {
	c := h.call()
	s, err := c.begun(ctx, owner, name)
	if err != nil {
		return nil, err
	}
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbEgress, Owner: owner, Sandbox: name, Needs: policy.Needs{Mode: egress.None}})
	if err != nil {
		return nil, err
	}
	// Whoever gives up meanwhile: all of them. And those that were begun before theirs was cut: a clone either is there when
	// the lineage is listed again, or sees that what it was made from was cut.
	ctx = context.WithoutCancel(ctx)
	var all []error
	done := map[string]bool{}
	for boxes := []sandbox.Sandbox{s}; len(boxes) > 0; {
		errs := make([]error, len(boxes))
		sideBySide(len(boxes), parallel, func(i int) {
			_, err := c.setMode(ctx, b, boxes[i], egress.None)
			if err != nil {
				errs[i] = fmt.Errorf("sandbox %s: %w", boxes[i].Name, err)
			}
		})
		for i, s := range boxes {
			switch done[s.ID] = true; {
			case errs[i] == nil:
				names = append(names, s.Name)
			case !errors.Is(errs[i], sandbox.ErrNotFound):
				all = append(all, errs[i])
			}
		}
		if !lineage {
			break
		}
		relatives, err := c.read.Relatives(ctx, s.Owner, s.Lineage)
		if err != nil {
			return names, errors.Join(append(all, err)...)
		}
		boxes = slices.DeleteFunc(relatives, func(other sandbox.Sandbox) bool { return done[other.ID] })
	}
	slices.Sort(names)
	return slices.Compact(names), errors.Join(all...)
}

// Records returns what is on record, for a human.
func (h *Human) Records(q ledger.Query) ([]ledger.Record, error) {
	return h.gate.store.Records(q)
}

// RequestsVersion changes whenever a request does.
func (h *Human) RequestsVersion() (string, error) { return h.gate.store.Version() }
