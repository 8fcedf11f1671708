package incus

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"strconv"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// A restore makes an instance that takes over another's keys. Whoever changes those meanwhile must not lose the change, and
// neither knows of the other: they may be different processes on different machines. So
//   - who changes keys writes them first, and then looks for an instance that is to take over, whose ID is known;
//   - who restores makes that instance first, and then looks at the keys that it took over.
//
// Whichever looks later sees what the other wrote. Keys have a revision, which grows with every change, and an instance that
// takes over notes the revision that it has: so nothing older overwrites what is newer. An instance that was replaced is
// marked before the one that replaced it is replaced, too: who has an ID that old is told to look the sandbox up again.
const (
	revisionKey = "user.pixels.revision" // how often the keys were changed
	seenKey     = "user.pixels.seen"     // of an instance that takes over: the revision of the other's keys that it has
	replacedKey = "user.pixels.replaced" // "true" once another instance is the sandbox, and then tidied
)

// takenOver are the keys that can change while a sandbox is restored.
var takenOver = []string{egressKey, rulesKey, expiresKey, goingKey, nameKey, renamedKey}

func number(config map[string]string, key string) int {
	n, _ := strconv.Atoi(config[key]) // without the key it is 0
	return n
}

// editor edits keys; it may be called more than once.
type editor func(config map[string]string) error

// everywhere changes the keys of a sandbox, and those of the instance that takes its place meanwhile. one changes the keys
// of one instance and carries out what they say.
func (b *Backend) everywhere(ctx context.Context, id string, edit editor, one func(id string, edit editor) error) error {
	for {
		var written map[string]string
		err := one(id, func(config map[string]string) error {
			before := maps.Clone(config)
			if config[replacedKey] != "" {
				return fault.Errorf(sandbox.ErrNotFound, fault.Hint{}, "instance %s was replaced (not found)", id)
			}
			if err := edit(config); err != nil {
				return err
			}
			if !maps.Equal(before, config) {
				config[revisionKey] = strconv.Itoa(number(config, revisionKey) + 1)
			}
			written = maps.Clone(config)
			return nil
		})
		if err != nil {
			return err
		}
		next := nextID(api.Instance{Name: id, InstancePut: api.InstancePut{Config: written}})
		took, err := b.passOn(ctx, written, next, one)
		if err != nil || !took {
			return err
		}
		id = next
	}
}

// passOn brings changed keys to the instance that is to take over, if there is one. It tells whether that one has taken over
// without them.
func (b *Backend) passOn(ctx context.Context, written map[string]string, next string, one func(id string, edit editor) error) (took bool, err error) {
	revision := number(written, revisionKey)
	err = one(next, func(config map[string]string) error {
		took = false
		switch {
		case number(config, seenKey) >= revision:
			return nil
		case whole(api.Instance{InstancePut: api.InstancePut{Config: config}}):
			took = true
			return nil
		}
		for _, key := range takenOver {
			if value := written[key]; value != "" {
				config[key] = value
			} else {
				delete(config, key)
			}
		}
		config[seenKey] = strconv.Itoa(revision)
		return nil
	})
	if missing(err) || errors.Is(err, sandbox.ErrNotFound) {
		return false, nil
	}
	return took, err
}

// markReplaced marks an instance as replaced.
func (b *Backend) markReplaced(ctx context.Context, id string) error {
	return b.setReplaced(ctx, id, func(now string) string { return cmp.Or(now, "true") })
}

// setReplaced changes the mark of an instance that was replaced.
func (b *Backend) setReplaced(ctx context.Context, id string, change func(now string) string) error {
	err := b.change(ctx, id, func(config map[string]string) error {
		config[replacedKey] = change(config[replacedKey])
		return nil
	}, nil)
	if missing(err) {
		return nil
	}
	return err
}

// prove sees to it that the instance which is to take over has the keys as they are now. It fails when the sandbox, or that
// instance, was destroyed meanwhile.
func (b *Backend) prove(ctx context.Context, old, next string) error {
	for {
		now, _, err := b.server.with(ctx).GetInstance(old)
		if err == nil && now.Config[goingKey] == "" {
			var has *api.Instance
			if has, _, err = b.server.with(ctx).GetInstance(next); err == nil && number(has.Config, seenKey) >= number(now.Config, revisionKey) {
				return b.enforceKeys(ctx, has)
			}
		}
		switch {
		case missing(err) || err == nil && now.Config[goingKey] != "":
			return fault.Errorf(sandbox.ErrNotFound, fault.Hint{}, "it was destroyed while it was restored (not found)")
		case err != nil:
			return err
		}
		if _, err := b.passOn(ctx, now.Config, next, func(id string, edit editor) error { return b.change(ctx, id, edit, nil) }); err != nil {
			return err
		}
	}
}

// enforceKeys has the gateway enforce the keys of an instance that is about to start, and fails when it was destroyed.
func (b *Backend) enforceKeys(ctx context.Context, inst *api.Instance) error {
	if inst.Config[goingKey] != "" {
		return fault.Errorf(sandbox.ErrNotFound, fault.Hint{}, "it was destroyed while it was made (not found)")
	}
	if b.bridged {
		return nil
	}
	_, err := b.enforce(ctx, inst.Name, inst.Config)
	return err
}

// proveSource fails with sandbox.ErrChanged unless the source of a copy still may reach what it might when the spec of the
// copy was made from it.
func (b *Backend) proveSource(ctx context.Context, spec sandbox.Spec) error {
	if spec.SourceID == "" || spec.SourceReach == "" {
		return nil
	}
	inst, _, err := b.server.with(ctx).GetInstance(spec.SourceID)
	for err == nil {
		next, _, e := b.server.with(ctx).GetInstance(nextID(*inst))
		if missing(e) || e == nil && !whole(*next) {
			break
		}
		inst, err = next, e
	}
	switch {
	case missing(err) || err == nil && (inst.Config[goingKey] != "" || mark(inst.Config) != spec.SourceReach):
		return fault.Errorf(sandbox.ErrChanged, fault.Hint{}, "what %s may reach, or that sandbox itself, was changed meanwhile", spec.From)
	}
	return err
}

// How long a change waits for an instance that Incus is busy with. One that goes for good does not wait for long: it is
// removed without a mark.
const (
	busyTime       = 60 * time.Second
	busyTimeGoing  = 5 * time.Second
	busyTimeOfEdit = 2 * time.Second // of a change of a card, or of the gateway, which comes again
)
