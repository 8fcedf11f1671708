package incus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/internal/units"
	"pixels/sandbox"
)

// renamedKey is the name that a sandbox had before, while it takes another one and for good: whoever looks for names that were taken
// twice removes no such sandbox, which may be older than the name.
const renamedKey = "user.pixels.renamed"

// Rename implements sandbox.Backend. As a creation does, it writes its claim and then looks: where another sandbox has the name, it goes
// back to its own.
func (b *Backend) Rename(ctx context.Context, id, name string) error {
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return b.failed(err, "rename the sandbox")
	}
	owner, before := inst.Config[ownerKey], inst.Config[nameKey]
	if before == name {
		return nil
	}
	if err := b.refuseTaken(ctx, owner, name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), busyTime) // a name is not left half-way
	defer cancel()
	set := func(to, was string) error {
		return b.everywhere(ctx, id, func(config map[string]string) error {
			if config[goingKey] != "" {
				return fault.Errorf(sandbox.ErrNotFound, fault.Hint{}, "it is being destroyed (not found)")
			}
			config[nameKey], config[renamedKey] = to, was
			return nil
		}, func(id string, edit editor) error { return b.change(ctx, id, edit, nil) })
	}
	if err := set(name, before); err != nil {
		return b.failed(err, "rename sandbox %s", before)
	}
	claims, err := b.claims(ctx, owner, name)
	for _, c := range claims {
		if err == nil && first(c) != first(*inst) && !b.left(c) {
			err = taken(name)
		}
	}
	if err != nil {
		return b.failed(errors.Join(err, set(before, "")), "rename sandbox %s", before)
	}
	if inst.StatusCode != api.Running {
		return nil // its host name is written when it starts
	}
	// Root inside may keep its host name from being changed, which is its own matter: the sandbox has its name all the same.
	_, _ = b.exec(ctx, id, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", `printf '%s\n' "$1" >/etc/hostname && hostname "$1"`, "sh", name}}, nil, nil, nil)
	return nil
}

// Resize implements sandbox.Backend.
func (b *Backend) Resize(ctx context.Context, id string, l sandbox.Limits) error {
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return b.failed(err, "resize the sandbox")
	}
	name := inst.Config[nameKey]
	room := l.Disk
	if l.Disk > 0 {
		if room, err = b.roomFor(ctx, inst, l.Disk); err != nil {
			return b.failed(err, "resize sandbox %s", name)
		}
	}
	unlock, err := b.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.notRestored(ctx, inst); err != nil {
		return err
	}
	err = edit(ctx, b.server, id, func(put *api.InstancePut) error {
		for key, n := range map[string]int64{"limits.cpu": int64(l.CPU), "limits.memory": l.Memory, "limits.processes": int64(l.Processes)} {
			if n > 0 {
				put.Config[key] = strconv.FormatInt(n, 10)
			}
		}
		if l.Disk == 0 {
			return nil
		}
		if put.Config[diskKey] != "" {
			put.Config[diskKey] = strconv.FormatInt(l.Disk, 10)
		}
		root := maps.Clone(put.Devices["root"])
		if root == nil {
			return fmt.Errorf("its disk is not its own")
		}
		root["size"] = strconv.FormatInt(room, 10)
		put.Devices["root"] = root
		return nil
	})
	b.cache.touch(id)
	if err == nil {
		err = b.notRestored(ctx, inst)
	}
	return b.failed(err, "resize sandbox %s", name)
}

// notRestored refuses what would be lost with a restore that is under way.
func (b *Backend) notRestored(ctx context.Context, inst *api.Instance) error {
	_, _, err := b.server.with(ctx).GetInstance(nextID(*inst))
	switch {
	case missing(err):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("sandbox %q: %w", inst.Config[nameKey], errRestoring)
}

// roomFor is how much of a disk of another size an instance would have, which must be more than it holds.
func (b *Backend) roomFor(ctx context.Context, inst *api.Instance, disk int64) (int64, error) {
	line, err := b.before(ctx, inst)
	if err != nil {
		return 0, err
	}
	room, err := b.room(ctx, line, disk)
	if err != nil {
		return 0, err
	}
	used, err := b.use(ctx, inst.Name)
	if err != nil {
		return 0, err
	}
	if known := diskOf(inst); disk < known && used < known && room < used+minRoom {
		return 0, fault.About(fault.Invalid, fmt.Sprintf("disk %s", units.Size(disk)), "is invalid: the sandbox holds %s, with its checkpoints; give %s or more", units.Size(disk-room+used), units.Size(disk-room+used+minRoom))
	}
	return room, nil
}
