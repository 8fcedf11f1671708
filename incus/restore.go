package incus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// A sandbox is restored by putting a copy of the checkpoint in its place. That is quicker than Incus's own restore, which
// has to stop the instance first; it changes nothing until the copy is ready; and it works on ZFS too, which can't roll
// back past newer snapshots. The instances of one sandbox are its line: they bear the ID of the first and count their
// turns, and the one of the latest turn that was started is the sandbox. Those before it stay only while they hold
// checkpoints, stopped. The copy's ID follows from both keys, so that Incus lets only one be made for a turn. It is
// the sandbox from its start on: that is the restore, and all before and after it can be done again.

// first is the ID of the first instance of i's line.
func first(i api.Instance) string {
	if id := i.Config[firstKey]; id != "" {
		return id
	}
	return i.Name
}

// turn is how many restores made i.
func turn(i api.Instance) int {
	n, _ := strconv.Atoi(i.Config[turnKey]) // that of the first has none
	return n
}

// nextID is the ID of the instance that takes the turn after i's.
func nextID(i api.Instance) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", first(i), turn(i)+1))
	return "pixels-" + hex.EncodeToString(sum[:6])
}

// replaced tells whether an instance holds only the past of a sandbox: another one took its place.
func replaced(i api.Instance, all map[string]*known) bool {
	for _, k := range all {
		if k.Config[firstKey] == first(i) && turn(k.Instance) > turn(i) && whole(k.Instance) && k.Config[ownerKey] == i.Config[ownerKey] {
			return true
		}
	}
	return false
}

// Restore implements sandbox.Backend.
func (b *Backend) Restore(ctx context.Context, id, label string) (sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Sandbox{}, err
	}
	b.at(restoreBegun)
	holder, snapshot, err := b.checkpoint(ctx, id, label)
	if err != nil {
		return sandbox.Sandbox{}, b.failed(err, "find checkpoint %s", label)
	}
	b.at(restoreFound)
	old, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s", label)
	}
	b.at(restoreRead)
	if old.Config[overKey] != "" {
		return sandbox.Sandbox{}, leaseOver(old)
	}
	name, next := old.Config[nameKey], nextID(*old)
	all, err := b.cache.fresh(ctx)
	if err != nil {
		return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s", label)
	}
	if replaced(*old, all) {
		return sandbox.Sandbox{}, fmt.Errorf("sandbox %q: %w", name, errRestoring)
	}
	if inst, _, err := b.server.with(ctx).GetInstance(next); err == nil {
		if !b.left(*inst) {
			return sandbox.Sandbox{}, fmt.Errorf("sandbox %q: %w", name, errRestoring)
		}
		if err := b.remove(ctx, next); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			return sandbox.Sandbox{}, b.failed(err, "remove what a restore of sandbox %s left half-made", name)
		}
	} else if !missing(err) {
		return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s", label)
	}
	for _, k := range all { // what a killed process left to be marked
		if first(k.Instance) == first(*old) && turn(k.Instance) < turn(*old) && k.Config[ownerKey] == old.Config[ownerKey] && k.Config[replacedKey] == "" {
			if err := b.markReplaced(ctx, k.Name); err != nil {
				return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s", label)
			}
		}
	}
	b.at(restoreAlone)
	if err := b.copyCheckpoint(ctx, old, holder, snapshot, next); err != nil {
		return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s of sandbox %s", label, name)
	}
	made, err := b.takeOver(ctx, old, next)
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		remove := b.remove
		if inst, _, e := b.server.with(ctx).GetInstance(next); e == nil && inst.Config[goingKey] != "" {
			remove = b.removeLine // it had become the sandbox, and was destroyed as that
		}
		if e := remove(clean, next); e != nil && !errors.Is(e, sandbox.ErrNotFound) {
			err = errors.Join(err, fmt.Errorf("and the copy could not be removed: %w", e))
		}
		return sandbox.Sandbox{}, b.failed(err, "restore checkpoint %s of sandbox %s", label, name)
	}
	b.later(func(ctx context.Context) {
		b.at(restoreRetiring)
		b.retire(ctx, id)
		b.at(restoreRetired)
	})
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
	moveEnv(config)
	for key := range snapshot.Config {
		if strings.HasPrefix(key, hostEnvKeys) {
			config[key] = ""
		}
	}
	delete(config, replacedKey)
	delete(config, idleKey) // it is started
	maps.Copy(config, map[string]string{
		firstKey: first(*old), turnKey: strconv.Itoa(turn(*old) + 1), seenKey: strconv.Itoa(number(old.Config, revisionKey)), createdKey: describe(old).CreatedAt.Format(time.RFC3339Nano),
	})
	devices := maps.Clone(old.Devices)
	delete(devices, card)
	maps.DeleteFunc(config, func(key, _ string) bool { return strings.HasPrefix(key, useKeys) })
	for key := range snapshot.Config {
		if strings.HasPrefix(key, useKeys) {
			config[key] = ""
		}
	}
	if err := b.giveRoom(ctx, old, config, devices); err != nil {
		return err
	}
	device, err := b.takeWire(ctx, next, config)
	if err != nil {
		return err
	}
	if device != nil {
		devices[card] = device
	} else if snapshot.Devices[card] != nil {
		devices[card] = map[string]string{"type": "none"}
	}
	b.at(restoreWired)
	op, err := b.server.commit(ctx).CreateInstance(api.InstancesPost{
		Name: next, Type: api.InstanceTypeContainer, Source: api.InstanceSource{Type: "copy", Source: holder + "/" + snapshot.Name},
		InstancePut: api.InstancePut{Profiles: []string{}, Config: config, Devices: devices},
	})
	b.at(restoreCopying)
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

// takeOverTime bounds how long the copy of a checkpoint may take to start and to be ready.
const takeOverTime = 2 * time.Minute

// takeOver starts the copy of a checkpoint, which makes it the sandbox.
func (b *Backend) takeOver(ctx context.Context, old *api.Instance, next string) (sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Sandbox{}, err
	}
	b.at(restoreCopied)
	if err := b.prove(ctx, old.Name, next); err != nil {
		return sandbox.Sandbox{}, err
	}
	b.at(restoreProven)
	// From its start on the copy is the sandbox, and any server may retire the one before: who gives up now gives up too late.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeOverTime)
	defer cancel()
	if err := b.boot(ctx, next, old.Config); err != nil {
		return sandbox.Sandbox{}, err
	}
	b.at(restoreStarted)
	made, err := b.ready(ctx, next, wired(old.Config))
	b.at(restoreReady)
	if err != nil {
		return made, err
	}
	if inst, _, err := b.server.with(ctx).GetInstance(next); missing(err) || err == nil && inst.Config[goingKey] != "" {
		return made, fault.Errorf(sandbox.ErrNotFound, fault.Hint{}, "it was destroyed while it was restored (not found)")
	}
	return made, nil
}

// retire stops an instance that was replaced, and removes it when it holds no checkpoint; else what it holds beside those.
func (b *Backend) retire(ctx context.Context, id string) {
	if b.settle(ctx, id) {
		_ = b.freeGarbage(ctx, id) // the next sweep tries again, as with all that fails here
	}
}

// retireAside is retire for a sweep: what may take long, for it depends on what a sandbox holds, holds up no other's end.
func (b *Backend) retireAside(ctx context.Context, id string) {
	if !b.settle(ctx, id) {
		return
	}
	if _, underWay := b.tidying.LoadOrStore(id, true); !underWay {
		b.later(func(ctx context.Context) {
			defer b.tidying.Delete(id)
			_ = b.freeGarbage(ctx, id)
		})
	}
}

// settle is retire without the garbage. It tells whether there may be some.
func (b *Backend) settle(ctx context.Context, id string) (untidied bool) {
	all, err := b.cache.fresh(ctx)
	if err != nil || all[id] == nil || !replaced(all[id].Instance, all) {
		return false
	}
	if b.markReplaced(ctx, id) != nil {
		return false
	}
	snapshots, err := b.server.with(ctx).GetInstanceSnapshotNames(id)
	switch {
	case err != nil:
		return false
	case len(snapshots) == 0:
		_ = b.remove(ctx, id)
		return false
	case all[id].StatusCode == api.Stopped:
		return all[id].Config[replacedKey] != tidied
	}
	if err := forceStop(ctx, b.server, id); err != nil {
		if inst, _, e := b.server.with(ctx).GetInstance(id); e != nil || inst.StatusCode != api.Stopped { // else it has stopped all the same
			return false
		}
	}
	return b.unplug(ctx, id) == nil
}

// line returns the IDs of an instance and of those of its line that it replaced, the newest first.
func (b *Backend) line(ctx context.Context, id string) ([]string, error) {
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return nil, err
	}
	before, err := b.before(ctx, inst)
	if err != nil {
		return nil, err
	}
	ids := []string{id}
	for _, i := range before {
		ids = append(ids, i.Name)
	}
	return ids, nil
}

// before returns the instances that one replaced, the newest first.
func (b *Backend) before(ctx context.Context, inst *api.Instance) (before []api.Instance, err error) {
	if turn(*inst) == 0 {
		return nil, nil
	}
	all, err := b.cache.fresh(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		if first(k.Instance) == first(*inst) && turn(k.Instance) < turn(*inst) && k.Config[ownerKey] == inst.Config[ownerKey] {
			before = append(before, k.Instance)
		}
	}
	slices.SortFunc(before, func(a, b api.Instance) int { return turn(b) - turn(a) })
	return before, nil
}

// checkpoint finds a checkpoint in a sandbox's line, and the ID of the instance that has it; sandbox.ErrNotFound.
func (b *Backend) checkpoint(ctx context.Context, id, label string) (holder string, snapshot *api.InstanceSnapshot, err error) {
	snapshot, _, err = b.server.with(ctx).GetInstanceSnapshot(id, label)
	if err == nil || !missing(err) {
		return id, snapshot, err
	}
	ids, err := b.line(ctx, id)
	if err != nil {
		return "", nil, err
	}
	for _, id := range ids[1:] {
		snapshot, _, err := b.server.with(ctx).GetInstanceSnapshot(id, label)
		if err == nil || !missing(err) {
			return id, snapshot, err
		}
	}
	return "", nil, fault.About(sandbox.ErrNotFound, fmt.Sprintf("checkpoint %q", label), "")
}
