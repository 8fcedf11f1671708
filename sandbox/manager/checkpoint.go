package manager

import (
	"context"
	"errors"
	"strconv"

	"pixels/internal/fault"
	"pixels/internal/plain"
	"pixels/policy"
	"pixels/sandbox"
)

// maxDescription bounds what is said of a checkpoint, in bytes.
const maxDescription = 1000

// CreateCheckpoint keeps the file system of a sandbox under a label; one is made up when it is empty.
func (m *Manager) CreateCheckpoint(ctx context.Context, caller Caller, name, label, description string) (sandbox.Checkpoint, error) {
	c := m.begin(caller)
	s, err := c.get(ctx, c.Owner, name)
	if err != nil {
		return sandbox.Checkpoint{}, err
	}
	if len(description) > maxDescription {
		return sandbox.Checkpoint{}, fault.About(sandbox.ErrInvalid, "description", "is invalid: use up to %d bytes of text", maxDescription)
	}
	description = plain.Line(description, maxDescription)
	if label != "" {
		if err := sandbox.CheckLabel(label); err != nil {
			return sandbox.Checkpoint{}, err
		}
	}
	cost, err := c.read.CheckpointCost(ctx, s.ID)
	if err != nil {
		return sandbox.Checkpoint{}, err
	}
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbCreateCheckpoint, Owner: c.Owner, Sandbox: name, Needs: policy.Needs{Checkpoints: 1, Disk: cost}})
	if err != nil {
		return sandbox.Checkpoint{}, err
	}
	defer b.done()
	if label != "" {
		return b.checkpoint(ctx, s.ID, label, description)
	}
	have, err := b.Checkpoints(ctx, s.ID)
	if err != nil {
		return sandbox.Checkpoint{}, err
	}
	// Another one may take the same label at the same time; the next number is then free.
	for n := len(have) + 1; ; n++ {
		c, err := b.checkpoint(ctx, s.ID, "checkpoint-"+strconv.Itoa(n), description)
		if !errors.Is(err, sandbox.ErrExists) || n > len(have)+20 {
			return c, err
		}
	}
}

// Checkpoints returns those of a sandbox, the oldest first.
func (m *Manager) Checkpoints(ctx context.Context, caller Caller, name string) ([]sandbox.Checkpoint, error) {
	c := m.begin(caller)
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbListCheckpoints, Owner: c.Owner, Sandbox: name}, name)
	if err != nil {
		return nil, err
	}
	return b.Checkpoints(ctx, s.ID)
}

// Restore puts a sandbox's file system back to a checkpoint and starts it anew; see Backend.Restore.
func (m *Manager) Restore(ctx context.Context, caller Caller, name, label string) (sandbox.Sandbox, error) {
	c := m.begin(caller)
	s, err := c.checkpointed(ctx, c.Owner, name, label)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbRestoreCheckpoint, Owner: c.Owner, Sandbox: name})
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	return b.Restore(ctx, s.ID, label)
}

// DeleteCheckpoint removes a checkpoint for good. What was made from it stays.
func (m *Manager) DeleteCheckpoint(ctx context.Context, caller Caller, name, label string) error {
	c := m.begin(caller)
	s, err := c.checkpointed(ctx, c.Owner, name, label)
	if err != nil {
		return err
	}
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbDeleteCheckpoint, Owner: c.Owner, Sandbox: name})
	if err != nil {
		return err
	}
	return b.DeleteCheckpoint(ctx, s.ID, label)
}

// checkpointed finds a sandbox that has a checkpoint.
func (c *call) checkpointed(ctx context.Context, owner, name, label string) (sandbox.Sandbox, error) {
	if err := sandbox.CheckLabel(label); err != nil {
		return sandbox.Sandbox{}, err
	}
	s, _, err := c.source(ctx, owner, name+":"+label)
	return s, err
}
