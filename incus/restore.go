package incus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/sandbox"
)

// A sandbox is restored by putting a copy of the checkpoint in its place. That is quicker than Incus's own restore, which
// has to stop the instance first; it changes nothing until the copy is ready; and it works on ZFS too, which can't roll
// back past newer snapshots. The instance that was the sandbox before stays, stopped, as the holder of the checkpoints
// that it has, and the copy's pastKey leads to it. The copy's ID follows from that of the instance that it replaces, so
// that Incus lets only one be made. It is the sandbox from its start on: that is the restore, and all before and
// after it can be done again.

// nextID is the ID of the instance that replaces another one.
func nextID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "pixels-" + hex.EncodeToString(sum[:6])
}

// follower is the ID of the instance that replaces i.
func follower(i api.Instance) string {
	if next := i.Config[nextKey]; next != "" {
		return next
	}
	return nextID(i.Name)
}

// Restore implements sandbox.Backend.
func (b *Backend) Restore(ctx context.Context, id, label string) (sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Sandbox{}, err
	}
	holder, snapshot, err := b.checkpoint(id, label)
	if err != nil {
		return sandbox.Sandbox{}, b.failed(err, "find checkpoint %s", label)
	}
	old, _, err := b.server.GetInstance(id)
	if err != nil {
		return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s", label)
	}
	name, next := old.Config[nameKey], follower(*old)
	if inst, _, err := b.server.GetInstance(next); err == nil {
		if !b.left(*inst) {
			return sandbox.Sandbox{}, fmt.Errorf("sandbox %q is being restored by another call, which is the %w: wait for it", name, sandbox.ErrState)
		}
		if err := b.remove(ctx, next); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			return sandbox.Sandbox{}, b.failed(err, "remove what a restore of sandbox %s left half-made", name)
		}
	} else if !missing(err) {
		return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s", label)
	}
	if err := b.copyCheckpoint(ctx, old, holder, snapshot, next); err != nil {
		return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s of sandbox %s", label, name)
	}
	made, err := b.takeOver(ctx, old, next)
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if e := b.remove(clean, next); e != nil && !errors.Is(e, sandbox.ErrNotFound) {
			err = errors.Join(err, fmt.Errorf("and the copy could not be removed: %w", e))
		}
		return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s of sandbox %s", label, name)
	}
	b.later(func(ctx context.Context) { b.retire(ctx, id) })
	return made, nil
}

// errRestoring means that another restore of the sandbox is under way.
var errRestoring = fmt.Errorf("it is being restored by another call, which is the %w: wait for it", sandbox.ErrState)

// copyCheckpoint makes the copy of a checkpoint that is to be the sandbox. When it fails, any copy there is another call's.
func (b *Backend) copyCheckpoint(ctx context.Context, old *api.Instance, holder string, snapshot *api.InstanceSnapshot, next string) error {
	// All that is the sandbox's and not the file system's comes from the instance as it is now.
	config := map[string]string{}
	for key := range snapshot.Config {
		if !strings.HasPrefix(key, "volatile.") && !strings.HasPrefix(key, "image.") {
			config[key] = ""
		}
	}
	for key, value := range old.Config {
		if !strings.HasPrefix(key, "volatile.") && !strings.HasPrefix(key, "image.") {
			config[key] = value
		}
	}
	maps.Copy(config, map[string]string{
		pastKey: old.Name, nextKey: "", createdKey: describe(old).CreatedAt.Format(time.RFC3339Nano),
	})
	devices := maps.Clone(old.Devices)
	delete(devices, card)
	device, err := b.takeWire(ctx, next, config)
	if err != nil {
		return err
	}
	if device != nil {
		devices[card] = device
	} else if snapshot.Devices[card] != nil {
		devices[card] = map[string]string{"type": "none"}
	}
	op, err := b.server.CreateInstance(api.InstancesPost{
		Name: next, Type: api.InstanceTypeContainer, Source: api.InstanceSource{Type: "copy", Source: holder + "/" + snapshot.Name},
		InstancePut: api.InstancePut{Profiles: []string{}, Config: config, Devices: devices},
	})
	ended, err := finish(ctx, b.server, op, err)
	switch {
	case err == nil || ended != nil && ended.StatusCode == api.Success:
		return nil // a call that was given up meanwhile learns it from what comes next
	case nameTaken(err):
		return errRestoring
	}
	b.dropWire(context.WithoutCancel(ctx), next)
	return err
}

// takeOver starts the copy of a checkpoint, which makes it the sandbox.
func (b *Backend) takeOver(ctx context.Context, old *api.Instance, next string) (sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Sandbox{}, err
	}
	if err := b.boot(ctx, next, old.Config); err != nil {
		return sandbox.Sandbox{}, err
	}
	return b.ready(ctx, next, wired(old.Config))
}

// nameTaken tells whether Incus refused to make an instance because there is one of the name, or one is just being made.
func nameTaken(err error) bool {
	text := err.Error()
	return strings.Contains(text, "already exists") || strings.Contains(text, "UNIQUE constraint failed") ||
		strings.Contains(text, `Instance is busy running a "create" operation`)
}

// retire stops an instance that was replaced, and removes it when it holds no checkpoint.
func (b *Backend) retire(ctx context.Context, id string) {
	inst, _, err := b.server.GetInstance(id)
	if err != nil {
		return
	}
	next, _, err := b.server.GetInstance(follower(*inst))
	if err != nil || !whole(*next) {
		return
	}
	snapshots, err := b.server.GetInstanceSnapshotNames(id)
	if err != nil {
		return
	}
	if len(snapshots) == 0 {
		// First out of the line, in both directions, then away: a line is never broken.
		past := inst.Config[pastKey]
		if past != "" {
			err := b.change(ctx, past, func(config map[string]string) error { config[nextKey] = next.Name; return nil })
			if err != nil && !missing(err) {
				return
			}
		}
		err := b.change(ctx, next.Name, func(config map[string]string) error {
			if config[pastKey] != id && config[pastKey] != past { // past, when a killed process came as far as this
				return fmt.Errorf("its past is another one (%w)", sandbox.ErrState)
			}
			config[pastKey] = past
			return nil
		})
		if err == nil {
			_ = b.remove(ctx, id) // the next sweep tries again
		}
		return
	}
	if inst.StatusCode != api.Stopped {
		op, err := b.server.UpdateInstanceState(id, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
		if _, err = finish(ctx, b.server, op, err); err == nil { // as above
			_ = b.unplug(ctx, id)
		}
	}
}

// maxLine ends a line that keys edited by hand made a circle.
const maxLine = 1000

// line returns the IDs of an instance and of those that it replaced, the newest first.
func (b *Backend) line(id string) ([]string, error) {
	ids := []string{}
	for id != "" && len(ids) < maxLine {
		inst, _, err := b.server.GetInstance(id)
		if missing(err) && len(ids) > 0 {
			break // removed behind our back, and its checkpoints with it
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
		id = inst.Config[pastKey]
	}
	return ids, nil
}

// checkpoint finds a checkpoint in a sandbox's line, and the ID of the instance that has it; sandbox.ErrNotFound.
func (b *Backend) checkpoint(id, label string) (holder string, snapshot *api.InstanceSnapshot, err error) {
	for n := 0; id != "" && n < maxLine; n++ {
		snapshot, _, err := b.server.GetInstanceSnapshot(id, label)
		if err == nil {
			return id, snapshot, nil
		}
		if !missing(err) {
			return "", nil, err
		}
		inst, _, err := b.server.GetInstance(id)
		if missing(err) && n > 0 {
			break // as in line
		}
		if err != nil {
			return "", nil, err
		}
		id = inst.Config[pastKey]
	}
	return "", nil, fmt.Errorf("checkpoint %q %w", label, sandbox.ErrNotFound)
}
