package incus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/sandbox"
)

// CreateCheckpoint implements sandbox.Backend. A snapshot has no description of its own: it is a key of the instance at
// the time, of which the snapshot keeps a copy.
func (b *Backend) CreateCheckpoint(ctx context.Context, id, label, description string) (sandbox.Checkpoint, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Checkpoint{}, err
	}
	inst, _, err := b.server.GetInstance(id)
	if err != nil {
		return sandbox.Checkpoint{}, b.failed(err, "checkpoint %s", label)
	}
	taken := fmt.Errorf("checkpoint %q of sandbox %q %w: choose another label", label, inst.Config[nameKey], sandbox.ErrExists)
	if _, _, err := b.checkpoint(id, label); err == nil {
		return sandbox.Checkpoint{}, taken
	} else if !errors.Is(err, sandbox.ErrNotFound) {
		return sandbox.Checkpoint{}, b.failed(err, "checkpoint %s", label)
	}
	if inst.Config[checkpointKeys+label] != description {
		err := b.change(ctx, id, func(config map[string]string) error {
			delete(config, checkpointKeys+label)
			if description != "" {
				config[checkpointKeys+label] = description
			}
			return nil
		}, nil)
		if err != nil {
			return sandbox.Checkpoint{}, b.failed(err, "describe checkpoint %s", label)
		}
	}
	op, err := b.server.CreateInstanceSnapshot(id, api.InstanceSnapshotsPost{Name: label})
	ended, err := finish(ctx, b.server, op, err)
	if err != nil && strings.Contains(err.Error(), "already exists") {
		return sandbox.Checkpoint{}, taken
	}
	if err != nil {
		if ctx.Err() != nil && ended != nil && ended.StatusCode == api.Success {
			b.dropSnapshot(ctx, id, label)
		}
		return sandbox.Checkpoint{}, b.failed(err, "checkpoint %s of %s", label, inst.Config[nameKey])
	}
	snapshot, _, err := b.server.GetInstanceSnapshot(id, label)
	if err != nil {
		return sandbox.Checkpoint{}, b.failed(err, "look at checkpoint %s", label)
	}
	b.later(func(ctx context.Context) { b.noteUse(ctx, id, label) })
	return describeCheckpoint(*snapshot), nil
}

// dropSnapshot removes the snapshot of a checkpoint that was given up.
func (b *Backend) dropSnapshot(ctx context.Context, id, label string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if op, err := b.server.DeleteInstanceSnapshot(id, label); err == nil {
		_, _ = wait(ctx, b.server, op)
	}
}

// Checkpoints implements sandbox.Backend.
func (b *Backend) Checkpoints(ctx context.Context, id string) ([]sandbox.Checkpoint, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ids, err := b.line(id)
	if err != nil {
		return nil, b.failed(err, "list checkpoints")
	}
	var snapshots []api.InstanceSnapshot
	costs := !b.charges()
	uses := map[string]int64{}
	for _, one := range ids {
		if costs {
			inst, err := b.cache.instance(one)
			if err != nil {
				return nil, b.failed(err, "list checkpoints")
			}
			if inst != nil {
				for key, value := range inst.Config {
					if label, ok := strings.CutPrefix(key, useKeys); ok {
						uses[label], _ = strconv.ParseInt(value, 10, 64) // it is ours
					}
				}
			}
		}
		some, err := b.server.GetInstanceSnapshots(one)
		if missing(err) && one != id { // a past instance without checkpoints, which has been removed just now
			continue
		}
		if err != nil {
			return nil, b.failed(err, "list checkpoints")
		}
		snapshots = append(snapshots, some...)
	}
	slices.SortStableFunc(snapshots, func(a, b api.InstanceSnapshot) int { return a.CreatedAt.Compare(b.CreatedAt) })
	out := []sandbox.Checkpoint{}
	for _, s := range snapshots {
		c := describeCheckpoint(s)
		c.Cost = uses[c.Label]
		out = append(out, c)
	}
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
	holder, _, err := b.checkpoint(id, label)
	if err != nil {
		return b.failed(err, "delete checkpoint %s", label)
	}
	op, err := b.server.DeleteInstanceSnapshot(holder, label)
	if _, err = finish(ctx, b.server, op, err); err != nil {
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
