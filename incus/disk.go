package incus

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/internal/units"
	"pixels/sandbox"
)

// A sandbox must not hold more of the pool than its disk, with all its checkpoints. Where the pool charges an instance for
// what its snapshots hold, that is so for one instance. A restore begins another one, which has what the instances before
// it don't hold. In other pools each checkpoint counts against the owner's quota, with the sandbox's use when it was made.
const (
	diskKey = "user.pixels.disk" // the sandbox's disk, in bytes, where its instance has less of it
	useKeys = "user.pixels.use." // and a checkpoint's label: the instance's use when that was made, in bytes
	// ChargesKey of a pool is "true" where it charges instances for what their snapshots hold; set-up notes it.
	ChargesKey = "user.pixels.charges_snapshots"
)

// minRoom is what a restored sandbox needs, in bytes, to be of use: to delete something, above all.
const minRoom = 64 << 20

// charges tells whether the pool charges instances for what their snapshots hold.
func (b *Backend) charges(ctx context.Context) bool {
	if known, ok := b.poolCharges.Load().(bool); ok {
		return known
	}
	pool, _, err := b.server.with(ctx).GetStoragePool(b.config.Pool)
	if err != nil {
		return false // it is asked again
	}
	known := pool.Config[ChargesKey] == "true"
	b.poolCharges.Store(known)
	return known
}

// CheckpointCost implements sandbox.Backend. Where the pool doesn't tell what a sandbox uses, that is all of its disk.
func (b *Backend) CheckpointCost(ctx context.Context, id string) (int64, error) {
	if b.charges(ctx) {
		return 0, nil
	}
	use, err := b.use(ctx, id)
	return use, b.failed(err, "look how much of its disk the sandbox uses")
}

// CheckpointsCost implements sandbox.Backend.
func (b *Backend) CheckpointsCost(ctx context.Context) bool { return !b.charges(ctx) }

// endingTime bounds how long Incus takes an instance for running whose processes have ended, when it tells nothing of it, and for
// one that is there whose disk is deleted already.
const endingTime = 5 * time.Second

// use is how much an instance takes of the pool, in bytes; all of its disk where the pool doesn't tell, as one of folders.
func (b *Backend) use(ctx context.Context, id string) (int64, error) {
	var state *api.InstanceState
	for late := time.Now().Add(endingTime); ; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		var err error
		if state, _, err = b.server.with(ctx).GetInstanceState(id); err == nil {
			break
		}
		if !noProcess(err) || time.Now().After(late) {
			return 0, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	if used := state.Disk["root"].Usage; used > 0 {
		return used, nil
	}
	inst, err := b.cache.instance(ctx, id)
	if err != nil || inst == nil {
		return 0, err
	}
	return diskOf(&inst.Instance), nil
}

// costOf is what a checkpoint of an instance takes, in a pool that doesn't charge for it: what the instance used when that was
// made, or uses now where it isn't noted.
func (b *Backend) costOf(ctx context.Context, id, label string) (int64, error) {
	inst, err := b.cache.instance(ctx, id)
	if err != nil {
		return 0, err
	}
	if inst != nil {
		if noted, err := strconv.ParseInt(inst.Config[useKeys+label], 10, 64); err == nil {
			return noted, nil
		}
	}
	use, err := b.use(ctx, id)
	if missing(err) { // it was removed just now
		return 0, nil
	}
	return use, err
}

// noteUse keeps what an instance is charged with once a checkpoint of it was made.
func (b *Backend) noteUse(ctx context.Context, id, label string) {
	use, err := b.use(ctx, id)
	if err == nil {
		_ = b.change(ctx, id, func(config map[string]string) error {
			config[useKeys+label] = strconv.FormatInt(use, 10)
			return nil
		}, nil)
	}
}

// diskOf is the disk that a sandbox has altogether, in bytes; 0 is no limit.
func diskOf(inst *api.Instance) int64 {
	for _, text := range []string{inst.Config[diskKey], inst.ExpandedDevices["root"]["size"]} {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	}
	return 0
}

// heldBy is what the checkpoints of an instance hold, in bytes, and the label of the last one; without one it is empty.
func (b *Backend) heldBy(ctx context.Context, inst *api.Instance) (held int64, last string, err error) {
	snapshots, err := b.server.with(ctx).GetInstanceSnapshots(inst.Name)
	if missing(err) || err == nil && len(snapshots) == 0 {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	var at time.Time
	for _, s := range snapshots {
		if !s.CreatedAt.Before(at) {
			at, last = s.CreatedAt, describeCheckpoint(s).Label
		}
	}
	// It is charged for all before the last one, too.
	if held, err := strconv.ParseInt(inst.Config[useKeys+last], 10, 64); err == nil {
		return held, last, nil
	}
	held, err = b.use(ctx, inst.Name)
	return held, last, err
}

// room is how much of its disk the latest instance of a sandbox may have, beside what those before it hold. 0 is no limit.
func (b *Backend) room(ctx context.Context, before []api.Instance, disk int64) (int64, error) {
	if disk == 0 || !b.charges(ctx) {
		return disk, nil
	}
	room := disk
	for _, inst := range before {
		held, _, err := b.heldBy(ctx, &inst)
		if err == nil && untidy(&inst) {
			var use int64
			use, err = b.use(ctx, inst.Name)
			held = max(held, use)
		}
		if err != nil {
			return 0, err
		}
		room -= held
	}
	return room, nil
}

// untidy tells of an instance whether it was replaced and may hold garbage still.
func untidy(inst *api.Instance) bool {
	return inst.Config[replacedKey] != "" && inst.Config[replacedKey] != tidied
}

// giveRoom gives the instance that a restore makes its share of the sandbox's disk.
func (b *Backend) giveRoom(ctx context.Context, old *api.Instance, config map[string]string, devices map[string]map[string]string) error {
	disk := diskOf(old)
	line, err := b.before(ctx, old)
	if err != nil {
		return err
	}
	room, err := b.room(ctx, append(line, *old), disk)
	if err == nil && room < minRoom && slices.ContainsFunc(line, func(inst api.Instance) bool { return untidy(&inst) }) {
		for _, inst := range line {
			b.retire(ctx, inst.Name)
		}
		if line, err = b.before(ctx, old); err == nil {
			room, err = b.room(ctx, append(line, *old), disk)
		}
	}
	switch {
	case err != nil:
		return err
	case room == disk && config[diskKey] == "":
		return nil
	case room < minRoom:
		return fault.Errorf(fault.State, fault.Hint{Action: fault.DeleteCheckpoint}, "its checkpoints hold %s of its disk of %s, so that there is no room for it",
			units.Size(disk-room), units.Size(disk))
	}
	config[diskKey] = strconv.FormatInt(disk, 10)
	devices["root"] = maps.Clone(devices["root"])
	devices["root"]["size"] = strconv.FormatInt(room, 10)
	return nil
}

// fitDisk gives a sandbox back what the instances before it no longer hold.
func (b *Backend) fitDisk(ctx context.Context, id string) error {
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil || inst.Config[diskKey] == "" {
		return err
	}
	line, err := b.before(ctx, inst)
	if err != nil {
		return err
	}
	room, err := b.room(ctx, line, diskOf(inst))
	if err != nil || room < minRoom {
		return err
	}
	unlock, err := b.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return edit(ctx, b.server, id, func(put *api.InstancePut) error {
		if put.Devices["root"] != nil {
			put.Devices["root"] = maps.Clone(put.Devices["root"])
			put.Devices["root"]["size"] = strconv.FormatInt(room, 10)
		}
		return nil
	})
}

// tidied is what the key says of an instance that was replaced and holds no garbage.
const tidied = "tidied"

// freeGarbage has an instance that was replaced hold what its checkpoints hold, and no more: it is put back to its last one.
// How much there is to free can't be seen, for what was just written may not be counted yet. With that Incus puts
// back its keys, which say where it stands in its line, as they were then.
func (b *Backend) freeGarbage(ctx context.Context, id string) error {
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return err
	}
	held, last, err := b.heldBy(ctx, inst)
	if err != nil || last == "" {
		return err
	}
	unlock, err := b.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	put := inst.Writable()
	put.Restore = last
	op, err := b.server.commit(ctx).UpdateInstance(id, put, "")
	_, err = finish(ctx, b.server, op, err)
	if inUse(err) {
		// On a full disk Incus can't end an instance's stop, and holds on to it until Incus itself is started again.
		err = b.emptyOut(ctx, id)
	}
	if err != nil {
		return err
	}
	b.cache.touch(id)
	return edit(ctx, b.server, id, func(put *api.InstancePut) error {
		put.Config[replacedKey], put.Config[useKeys+last] = tidied, strconv.FormatInt(held, 10)
		put.Config["volatile.last_state.power"] = "STOPPED" // or an incusd that comes up would start it
		delete(put.Devices, card)
		return nil
	})
}

// emptyOut removes all files of a stopped instance. Its checkpoints have theirs.
func (b *Backend) emptyOut(ctx context.Context, id string) (err error) {
	f, err := b.OpenFiles(ctx, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return removeAllIn(f, "/")
}

func removeAllIn(f sandbox.Files, dir string) error {
	list, err := f.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range list {
		at := path.Join(dir, file.Name)
		if file.Mode.IsDir() {
			if err := removeAllIn(f, at); err != nil {
				return err
			}
		}
		if err := f.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
