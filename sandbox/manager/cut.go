package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// A human's no is no agent's to undo: neither that a sandbox is to have no network, nor what is denied to it.

// cutOff notes, before its egress becomes none by a human, that no agent may give a sandbox a network again.
func (c *call) cutOff(s sandbox.Sandbox) error {
	if !c.human {
		return nil
	}
	return c.gate.store.Cut(s.Owner, s.Name, s.CreatedAt, c.Channel)
}

// givenBack notes that a human gave it one.
func (c *call) givenBack(s sandbox.Sandbox) error {
	if !c.human {
		return nil
	}
	return c.gate.store.Uncut(s.Owner, s.Name, s.CreatedAt)
}

// mayHave refuses an agent a mode for a sandbox, or for a copy of it, that a human took the network from.
func (c *call) mayHave(s sandbox.Sandbox, mode egress.Mode) error {
	if c.human || mode == egress.None {
		return nil
	}
	by, err := c.gate.store.CutBy(s.Owner, s.Name, s.CreatedAt)
	if err == nil && by != "" {
		err = fault.Errorf(sandbox.ErrDenied, fault.Hint{Action: fault.GiveNetworkBack, Name: s.Name, Value: string(mode)}, "%s: a human (%s) took the network from sandbox %q", sandbox.ErrDenied, by, s.Name)
	}
	return err
}

// liftsNothing refuses an agent the mode unrestricted where that lifts what a human denied.
func (c *call) liftsNothing(mode egress.Mode, own []egress.Grant) error {
	i := slices.IndexFunc(own, func(g egress.Grant) bool { return g.Deny && g.ByHuman() })
	if c.human || mode != egress.Unrestricted || i < 0 {
		return nil
	}
	return fault.Errorf(sandbox.ErrDenied, fault.Hint{}, "denied by the policy: the egress %s would lift the denial of %s (by %s); a human may set it", mode, own[i].Rule, own[i].From)
}

// setMode changes the egress mode of a sandbox.
func (c *call) setMode(ctx context.Context, b *permit, s sandbox.Sandbox, mode egress.Mode) (EgressChange, error) {
	var noted error
	if mode == egress.None {
		if noted = c.cutOff(s); noted != nil { // which keeps nobody from being cut off
			noted = fmt.Errorf("sandbox %s has no network now, and an agent may give it one again, for that could not be noted: %w", s.Name, noted)
		}
	} else if err := c.mayHave(s, mode); err != nil {
		return EgressChange{}, err
	}
	change, err := c.editEgress(ctx, b, s, func(_ egress.Mode, own []egress.Grant) (egress.Mode, []egress.Grant, error) {
		// Looked at once more: who cuts it off notes that first, and then changes it.
		return mode, own, errors.Join(c.mayHave(s, mode), c.liftsNothing(mode, own))
	})
	if err == nil && mode != egress.None && c.human {
		err = c.givenBack(s)
		c.settle(context.WithoutCancel(ctx), s.Owner, s.Lineage, fmt.Sprintf("granted by the egress %s (%s)", mode, c.by(policy.VerbEgress, s.Owner, "")))
	}
	if err == nil {
		err = noted
	}
	return change, err
}
