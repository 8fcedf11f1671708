package incus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// Destroy implements sandbox.Backend. It marks the sandbox as going, from when on it is none any more, and removes it in
// the background: to stop an instance takes Incus most of a second. Whoever sweeps next ends what a killed process began.
func (b *Backend) Destroy(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.failed(b.condemn(ctx, id, func(map[string]string) error { return nil }), "destroy")
}

// condemn marks a sandbox as going when may allows it, and has it removed.
func (b *Backend) condemn(ctx context.Context, id string, may func(config map[string]string) error) error {
	// A removal that was begun is not left half-way.
	ctx = context.WithoutCancel(ctx)
	marking, cancel := context.WithTimeout(ctx, busyTimeGoing)
	defer cancel()
	err := b.everywhere(marking, id, func(config map[string]string) error {
		if config[goingKey] != "" {
			return fault.About(sandbox.ErrNotFound, fmt.Sprintf("instance %s", id), "")
		}
		if err := may(config); err != nil {
			return err
		}
		config[goingKey] = "true"
		return nil
	}, func(id string, edit editor) error {
		going := false
		err := b.change(marking, id, func(config map[string]string) error {
			err := edit(config)
			going = config[goingKey] != ""
			return err
		}, nil)
		if err == nil && going {
			b.later(func(ctx context.Context) { _ = b.removeLine(ctx, id) }) // a sweep repeats what fails
		}
		return err
	})
	switch {
	case err == nil:
		return nil
	case missing(err), errors.Is(err, sandbox.ErrNotFound), errors.Is(err, sandbox.ErrState), errors.Is(b.config.unreachable(err), ErrUnreachable):
		return err
	}
	// An instance whose disk is full can't be marked, and must go all the more, and with it what a restore puts in its place.
	inst, _, e := b.server.with(ctx).GetInstance(id)
	if e == nil {
		e = b.removeLine(ctx, id)
	}
	if e == nil {
		if e = b.condemn(ctx, nextID(*inst), may); errors.Is(e, sandbox.ErrNotFound) {
			e = nil
		}
	}
	if e != nil && !missing(e) {
		return errors.Join(err, e)
	}
	return nil
}

// remove removes an instance, as the function of that name does, and what it had of the gateway.
func (b *Backend) remove(ctx context.Context, id string) error {
	defer b.cache.touch(id)
	err := remove(ctx, b.server, id)
	if err == nil || errors.Is(err, sandbox.ErrNotFound) {
		b.dropWire(ctx, id)
	}
	return err
}

// removeLine removes an instance and those that it replaced. It goes last, for it leads to the others.
func (b *Backend) removeLine(ctx context.Context, id string) error {
	ids, err := b.line(ctx, id)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for i := len(ids) - 1; i >= 0; i-- {
		if err := b.remove(ctx, ids[i]); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			return err
		}
	}
	return nil
}

// later does work in the background that Close waits for.
func (b *Backend) later(do func(ctx context.Context)) {
	b.background.Go(func() {
		defer func() { // a sweep takes up what it leaves
			if p := recover(); p != nil {
				fmt.Fprintf(os.Stderr, "in the background: panic: %v\n%s", p, debug.Stack())
			}
		}()
		ctx, cancel := context.WithTimeout(b.working, 2*time.Minute)
		defer cancel()
		do(ctx)
	})
}

// Close implements sandbox.Backend.
func (b *Backend) Close() {
	b.wires.hush()
	b.endBackground()
	b.sessions.close()
	b.wires.close()
	b.others.Range(func(_, w any) bool { w.(*wires).close(); return true })
	b.end()
	b.feeding.Wait()
	if c, err := b.server.with(context.Background()).GetHTTPClient(); err == nil {
		c.CloseIdleConnections()
	}
}

// answersWithin is how long Incus may take, when the Backend is closed, to show that work in the background will end.
const answersWithin = 3 * time.Second

// endBackground waits for the work in the background, and gives it up when Incus does not answer. A sweep takes up what it
// leaves.
func (b *Backend) endBackground() {
	idle := make(chan struct{})
	go func() {
		b.background.Wait()
		close(idle)
	}()
	for {
		select {
		case <-idle:
			return
		case <-time.After(answersWithin):
		}
		ctx, cancel := context.WithTimeout(context.Background(), answersWithin)
		_, _, err := b.server.with(ctx).GetServer()
		cancel()
		if err == nil {
			continue
		}
		b.stopWork()
		select {
		case <-idle:
		case <-time.After(answersWithin):
		}
		return
	}
}

// left tells whether an instance that isn't whole was left so by a process that ended.
func (b *Backend) left(i api.Instance) bool {
	return !whole(i) && b.now().Sub(i.CreatedAt) >= b.stale
}

// Sweep implements sandbox.Backend.
func (b *Backend) Sweep(ctx context.Context, rules sandbox.SweepRules) (sandbox.Swept, error) {
	return b.sweep(ctx, "", rules)
}

// sweep sweeps the sandboxes of an owner, or of all when that is empty.
func (b *Backend) sweep(ctx context.Context, owner string, rules sandbox.SweepRules) (swept sandbox.Swept, err error) {
	if err := ctx.Err(); err != nil {
		return swept, err
	}
	all, err := b.cache.instances(ctx)
	if err != nil {
		return swept, b.failed(err, "sweep")
	}
	var errs []error
	for _, k := range all {
		inst := k.Instance
		if inst.Config[ownerKey] == "" || inst.Config[nameKey] == "" || owner != "" && owner != inst.Config[ownerKey] {
			continue
		}
		switch {
		case inst.Config[goingKey] != "":
			err = b.removeLine(ctx, inst.Name)
		case b.left(inst):
			// A copy that was to replace another is no part of that one's line yet.
			if err = b.remove(ctx, inst.Name); errors.Is(err, sandbox.ErrNotFound) {
				err = nil
			}
		case replaced(inst, all):
			b.retireAside(ctx, inst.Name)
		case shown(inst, all) && b.now().Sub(inst.CreatedAt) >= b.stale && b.gaveWay(all, inst):
			// Another one has the name, and the creation that should have given way was killed.
			if err = b.remove(ctx, inst.Name); errors.Is(err, sandbox.ErrNotFound) {
				err = nil
			}
		case whole(inst) && b.overdue(inst.Config) && inst.Config[overKey] == "" && rules.StopAtEnd:
			if err = b.endLease(ctx, &inst); err == nil {
				swept.Stopped = append(swept.Stopped, describe(&inst))
			} else if errors.Is(err, sandbox.ErrState) || missing(err) {
				err = nil
			}
		case whole(inst) && b.overdue(inst.Config) && b.now().After(destroyedAt(inst.Config)):
			err = b.condemn(ctx, inst.Name, func(config map[string]string) error {
				if !b.overdue(config) {
					return sandbox.ErrState // extended in the meantime
				}
				return nil
			})
			if err == nil {
				swept.Destroyed = append(swept.Destroyed, describe(&inst))
			} else if errors.Is(err, sandbox.ErrState) || errors.Is(err, sandbox.ErrNotFound) || missing(err) {
				err = nil
			}
		case whole(inst) && !b.overdue(inst.Config) && rules.Idle > 0 && inst.StatusCode == api.Running && b.now().Sub(lastUsed(&inst)) >= rules.Idle:
			var stopped bool
			if stopped, err = b.stopIdle(ctx, &inst, rules.Idle); stopped {
				swept.Idle = append(swept.Idle, describe(&inst))
			}
			if missing(err) || errors.Is(err, sandbox.ErrNotFound) || errors.Is(err, sandbox.ErrState) {
				err = nil // it went, or was stopped, meanwhile
			}
		case actsOutside(inst.Config):
			err = b.change(ctx, inst.Name, func(config map[string]string) error { moveEnv(config); return nil }, nil)
			if missing(err) {
				err = nil
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", inst.Config[nameKey], err))
			err = nil
		}
		if ctx.Err() != nil {
			return swept, ctx.Err()
		}
	}
	if owner == "" {
		errs = append(errs, b.mendWires(ctx, all))
	}
	return swept, b.failed(errors.Join(errs...), "sweep")
}

// gaveWay tells whether a sandbox has a name that an older one has: the creation that should have given way was killed. One that was
// renamed may be older than its name, and so none of those who share it is removed.
func (b *Backend) gaveWay(all map[string]*known, inst api.Instance) bool {
	claims := claimsIn(all, inst.Config[ownerKey], inst.Config[nameKey])
	return claims[0].Name != inst.Name && !slices.ContainsFunc(claims, func(c api.Instance) bool { return c.Config[renamedKey] != "" })
}

// overdue tells whether a lease is over.
func (b *Backend) overdue(config map[string]string) bool {
	at, err := time.Parse(time.RFC3339, config[expiresKey])
	return err == nil && b.now().After(at)
}
