package manager

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"pixels/egress"
	"pixels/sandbox"
)

// giveOnce gives the gateway alone a grant for one connection.
func (c *call) giveOnce(ctx context.Context, s sandbox.Sandbox, id string, as egress.Grant, rule egress.Rule) error {
	if _, err := egress.Allow(s.Rules, as, rule); err != nil {
		return fmt.Errorf("%w: %w", sandbox.ErrInvalid, err)
	}
	as.Once, as.Rule, as.Alone, as.At = id, rule, true, egress.After(s.Rules)
	return c.gate.backend.GrantOnce(ctx, s.ID, as)
}

// give brings a grant to sandboxes, to all or to none.
func (c *call) give(ctx context.Context, b *permit, boxes []sandbox.Sandbox, as egress.Grant, rule egress.Rule) error {
	before := make([][]egress.Grant, len(boxes))
	after := make([][]egress.Grant, len(boxes))
	errs := make([]error, len(boxes))
	sideBySide(len(boxes), parallel, func(i int) {
		cut, err := b.SetEgress(ctx, boxes[i].ID, func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			before[i] = own
			if mode == egress.None {
				return "", nil, nothingIn(boxes[i])
			}
			var err error
			after[i], err = egress.Allow(own, as, rule)
			return mode, after[i], err
		})
		if errs[i] = err; err == nil {
			c.changed(ctx, boxes[i], egress.Changes("", "", before[i], after[i]), cut)
		}
		if errors.Is(errs[i], sandbox.ErrNotFound) { // it was destroyed meanwhile
			before[i], errs[i] = nil, nil
		}
	})
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	undone := make([]error, len(boxes))
	sideBySide(len(boxes), parallel, func(i int) {
		if errs[i] != nil && before[i] == nil {
			return
		}
		_, undone[i] = c.editEgress(ctx, b, boxes[i], func(mode egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
			return mode, takeBack(own, before[i], after[i]), nil
		})
	})
	return fmt.Errorf("the grant can't be brought to all sandboxes, so none has it: %w", errors.Join(err, errors.Join(undone...)))
}

// takeBack returns rules without what a change added that made after of before, and with what it dropped.
func takeBack(own, before, after []egress.Grant) []egress.Grant {
	in := func(list []egress.Grant, g egress.Grant) bool {
		return slices.ContainsFunc(list, func(o egress.Grant) bool { return reflect.DeepEqual(o, g) })
	}
	var out []egress.Grant
	for _, g := range before {
		if in(own, g) || !in(after, g) {
			out = append(out, g)
		}
	}
	for _, g := range own {
		if !in(before, g) && !in(after, g) {
			out = append(out, g)
		}
	}
	return egress.Lasting(out)
}
