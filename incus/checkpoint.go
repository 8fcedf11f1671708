package incus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// CreateCheckpoint implements sandbox.Backend. A snapshot has no description of its own: it is a key of the instance at
// the time, of which the snapshot keeps a copy.
func (b *Backend) CreateCheckpoint(ctx context.Context, id, label, description string) (sandbox.Checkpoint, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Checkpoint{}, err
	}
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return sandbox.Checkpoint{}, b.failed(err, "checkpoint %s", label)
	}
	taken := fault.About(sandbox.ErrExists, fmt.Sprintf("checkpoint %q of sandbox %q", label, inst.Config[nameKey]), "already exists: choose another label")
	if _, _, err := b.checkpoint(ctx, id, label); err == nil {
		return sandbox.Checkpoint{}, taken
	} else if !errors.Is(err, sandbox.ErrNotFound) {
		return sandbox.Checkpoint{}, b.failed(err, "checkpoint %s", label)
	}
	use := ""
	if !b.charges(ctx) { // afterwards the snapshot shares what was the instance's alone
		n, err := b.use(ctx, id)
		if err != nil {
			return sandbox.Checkpoint{}, b.failed(err, "look what checkpoint %s takes", label)
		}
		use = strconv.FormatInt(n, 10)
	}
	if inst.Config[checkpointKeys+label] != description || use != "" {
		err := b.change(ctx, id, func(config map[string]string) error {
			delete(config, checkpointKeys+label)
			if description != "" {
				config[checkpointKeys+label] = description
			}
			if use != "" {
				config[useKeys+label] = use
			}
			return nil
		}, nil)
		if err != nil {
			return sandbox.Checkpoint{}, b.failed(err, "describe checkpoint %s", label)
		}
	}
	unlock, err := b.lock(ctx, id)
	if err != nil {
		return sandbox.Checkpoint{}, b.failed(err, "checkpoint %s of %s", label, inst.Config[nameKey])
	}
	op, err := b.server.commit(ctx).CreateInstanceSnapshot(id, api.InstanceSnapshotsPost{Name: label})
	ended, err := finish(ctx, b.server, op, err)
	unlock()
	if snapshotExists(err) {
		return sandbox.Checkpoint{}, taken
	}
	if err != nil {
		if ctx.Err() != nil && ended != nil && ended.StatusCode == api.Success {
			b.dropSnapshot(ctx, id, label)
		}
		return sandbox.Checkpoint{}, b.failed(err, "checkpoint %s of %s", label, inst.Config[nameKey])
	}
	snapshot, _, err := b.server.with(ctx).GetInstanceSnapshot(id, label)
	if err != nil {
		return sandbox.Checkpoint{}, b.failed(err, "look at checkpoint %s", label)
	}
	if use == "" {
		b.later(func(ctx context.Context) { b.noteUse(ctx, id, label) })
	}
	return describeCheckpoint(*snapshot), nil
}

// dropSnapshot removes the snapshot of a checkpoint that was given up.
func (b *Backend) dropSnapshot(ctx context.Context, id, label string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if op, err := b.server.commit(ctx).DeleteInstanceSnapshot(id, label); err == nil {
		_, _ = wait(ctx, b.server, op)
	}
}

// Checkpoints implements sandbox.Backend.
func (b *Backend) Checkpoints(ctx context.Context, id string) ([]sandbox.Checkpoint, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ids, err := b.line(ctx, id)
	if err != nil {
		return nil, b.failed(err, "list checkpoints")
	}
	out := []sandbox.Checkpoint{}
	for _, one := range ids {
		snapshots, err := b.server.with(ctx).GetInstanceSnapshots(one)
		if missing(err) && one != id { // a past instance without checkpoints, which has been removed just now
			continue
		}
		if err != nil {
			return nil, b.failed(err, "list checkpoints")
		}
		for _, s := range snapshots {
			c := describeCheckpoint(s)
			if !b.charges(ctx) {
				if c.Cost, err = b.costOf(ctx, one, c.Label); err != nil {
					return nil, b.failed(err, "look what the checkpoint %s takes", c.Label)
				}
			}
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b sandbox.Checkpoint) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return out, nil
}

func describeCheckpoint(s api.InstanceSnapshot) sandbox.Checkpoint {
	label := s.Name[strings.LastIndex(s.Name, "/")+1:]
	return sandbox.Checkpoint{Label: label, Description: s.Config[checkpointKeys+label], CreatedAt: s.CreatedAt, Size: max(s.Size, 0)}
}

// DeleteCheckpoint implements sandbox.Backend.
func (b *Backend) DeleteCheckpoint(ctx context.Context, id, label string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	holder, _, err := b.checkpoint(ctx, id, label)
	if err != nil {
		return b.failed(err, "delete checkpoint %s", label)
	}
	if holder != id { // it may have been put back to this one, which is garbage then
		if err := b.setReplaced(ctx, holder, func(string) string { return "true" }); err != nil {
			return b.failed(err, "delete checkpoint %s", label)
		}
	}
	unlock, err := b.lock(ctx, holder) // Incus fails to write an instance's settings while one of its snapshots goes
	if err != nil {
		return b.failed(err, "delete checkpoint %s", label)
	}
	op, err := b.server.commit(ctx).DeleteInstanceSnapshot(holder, label)
	_, err = finish(ctx, b.server, op, err)
	unlock()
	if full(err) {
		if _, _, e := b.server.with(ctx).GetInstanceSnapshot(holder, label); missing(e) {
			err = nil
		}
	}
	if err != nil {
		return b.failed(err, "delete checkpoint %s", label)
	}
	if holder != id {
		b.later(func(ctx context.Context) {
			b.retire(ctx, holder)
			_ = b.fitDisk(ctx, id) // the next checkpoint that is deleted does it again
		})
	}
	// Its description would be found again by the next checkpoint of the label, which sets its own: it only takes room.
	err = b.change(ctx, id, func(config map[string]string) error {
		delete(config, checkpointKeys+label)
		delete(config, useKeys+label)
		return nil
	}, nil)
	if err != nil && !missing(err) && !errors.Is(err, context.Canceled) {
		return b.failed(err, "forget the description of checkpoint %s", label)
	}
	return nil
}
