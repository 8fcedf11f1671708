package incus

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxc/incus/v6/shared/api"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/owner"
	"pixels/sandbox"
)

// Keys of a sandbox's instance. All that is known of a sandbox is there, so that any number of servers share one Incus.
const (
	nameKey        = "user.pixels.name"
	ownerKey       = "user.pixels.owner"
	fromKey        = "user.pixels.from"
	egressKey      = "user.pixels.egress"
	lineageKey     = "user.pixels.lineage"     // ID of the first sandbox that it comes from, where that is another one
	networkKey     = "user.pixels.network"     // whose gateway is its way out
	pluggedKey     = "user.pixels.plugged"     // the run of the gateway in which its wire was last replaced while it ran
	rulesKey       = "user.pixels.rules"       // its own rules, a JSON list of egress.Grant
	expiresKey     = "user.pixels.expires"     // when its lease ends, RFC 3339
	createdKey     = "user.pixels.created"     // when the sandbox was made, where the instance is a later one
	goingKey       = "user.pixels.going"       // "true" once it is to be removed; it is no sandbox any more then
	firstKey       = "user.pixels.first"       // ID of the sandbox's first instance, where that is another one: see restore.go
	turnKey        = "user.pixels.turn"        // how many restores made the instance
	labelKeys      = "user.pixels.label."      // and the label's key
	checkpointKeys = "user.pixels.checkpoint." // and the checkpoint's label; the value is its description
)

// userProperty is the property of an image that says which user, group and home sandbox.DefaultUser has, as
// UID:GID:HOME. Incus copies it to the instance: reading /etc/passwd inside would cost 25 ms at every command.
const userProperty = "user.pixels.user"

// Backend is a sandbox.Backend on one Incus project. It keeps no state but a cache, and needs no Incus to be opened: calls
// made while none answers fail with ErrUnreachable, and the next one may work.
type Backend struct {
	server *daemon
	config Config
	cache  *cache
	wires  *wires             // of the configured network
	others sync.Map           // of names of other networks to their *wires
	end    context.CancelFunc // stops feeding the cache
	stale  time.Duration      // staleAfter, but in tests
	late   time.Duration      // lookAgainAfter, but in tests
	now    func() time.Time   // time.Now, but in tests

	waking     singleflight.Group // of sandboxes that sleep, by ID
	bridged    bool               // in tests: cards on the bridge instead of wires
	feeding    sync.WaitGroup
	background tasks
	working    context.Context // of the work in the background
	stopWork   context.CancelFunc
	sessions   sessions
	mending    *semaphore.Weighted // of wires: one at a time is enough
	programs   sync.Map            // of IDs of the instances that have our program
	toppingUp  atomic.Bool
	tidying    sync.Map   // of IDs of replaced instances from which a sweep has garbage removed just now
	changing   sync.Map   // of instance IDs to the *semaphore.Weighted of who changes their keys
	stopAt     func(stop) // in tests: called at each stop

	poolCharges atomic.Value // of a bool: see charges
}

var _ sandbox.Backend = (*Backend)(nil)

// OpenBackend makes a Backend for the Incus of c. It fails only on wrong settings.
func OpenBackend(c Config) (*Backend, error) {
	c = c.withDefaults()
	if c.Presets == nil {
		var err error
		if c.Presets, err = egress.Shipped(nil); err != nil {
			return nil, err
		}
	}
	server, err := dial(c, cmp.Or(c.limit, callLimit))
	if err != nil {
		return nil, err
	}
	b := &Backend{server: server, config: c, cache: &cache{server: server}, wires: newWires(server, c), stale: staleAfter, late: lookAgainAfter, now: time.Now, mending: semaphore.NewWeighted(1)}
	b.wires.lost = func() { b.later(b.mendSoon) }
	b.working, b.stopWork = context.WithCancel(context.Background())
	var following context.Context
	following, b.end = context.WithCancel(context.Background())
	b.feeding.Go(func() { b.cache.follow(following, c) })
	return b, nil
}

// List implements sandbox.Backend.
func (b *Backend) List(ctx context.Context, owner string) ([]sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := b.cache.instances(ctx)
	if err != nil {
		return nil, b.failed(err, "list sandboxes")
	}
	out := []sandbox.Sandbox{}
	for _, k := range all {
		if k.Config[ownerKey] == owner && shown(k.Instance, all) {
			out = append(out, describe(&k.Instance))
		}
	}
	slices.SortFunc(out, func(a, b sandbox.Sandbox) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Tree implements sandbox.Backend.
func (b *Backend) Tree(ctx context.Context, top string, fresh bool) (out []sandbox.Sandbox, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	list := b.cache.instances
	if fresh {
		list = b.cache.fresh
	}
	all, err := list(ctx)
	if err != nil {
		return nil, b.failed(err, "list sandboxes")
	}
	for _, k := range all {
		if whose := k.Config[ownerKey]; whose != "" && owner.Under(whose, top) && shown(k.Instance, all) {
			out = append(out, describe(&k.Instance))
		}
	}
	return out, nil
}

// Relatives implements sandbox.Backend.
func (b *Backend) Relatives(ctx context.Context, owner, lineage string) (out []sandbox.Sandbox, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := b.cache.fresh(ctx)
	if err != nil {
		return nil, b.failed(err, "list the sandboxes of a lineage")
	}
	for _, k := range all {
		if s := describe(&k.Instance); s.Owner == owner && s.Lineage == lineage && shown(k.Instance, all) {
			out = append(out, s)
		}
	}
	return out, nil
}

// networked tells whether an instance has a network card.
func networked(i api.Instance) bool { return i.ExpandedDevices[card]["type"] == "nic" }

// Get implements sandbox.Backend.
func (b *Backend) Get(ctx context.Context, owner, name string) (sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Sandbox{}, err
	}
	all, err := b.cache.instances(ctx)
	if err != nil {
		return sandbox.Sandbox{}, b.failed(err, "find sandbox %s", name)
	}
	found := claimsIn(all, owner, name)
	if len(found) == 0 {
		return sandbox.Sandbox{}, fault.About(sandbox.ErrNotFound, fault.Sandbox(name), "")
	}
	k := all[found[0].Name]
	return describe(&k.Instance), nil
}

// claims asks Incus for the instances that bear a name for an owner.
func (b *Backend) claims(ctx context.Context, owner, name string) ([]api.Instance, error) {
	all, err := b.cache.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if len(claimsIn(all, owner, name)) > 1 {
		// How far the others are decides, and of that there may be no event yet.
		for _, c := range claimsIn(all, owner, name) {
			b.cache.touch(c.Name)
		}
		if all, err = b.cache.instances(ctx); err != nil {
			return nil, err
		}
	}
	return claimsIn(all, owner, name), nil
}

// claimsIn returns the instances that bear a name for an owner: the whole one first, then the older before the newer. More
// than one is there only while several creations of one name are under way.
func claimsIn(all map[string]*known, owner, name string) (found []api.Instance) {
	for _, k := range all {
		if k.Config[ownerKey] == owner && k.Config[nameKey] == name && shown(k.Instance, all) {
			found = append(found, k.Instance)
		}
	}
	slices.SortFunc(found, func(a, b api.Instance) int {
		if whole(a) != whole(b) {
			return map[bool]int{true: -1, false: 1}[whole(a)]
		}
		return older(a, b)
	})
	return found
}

// shown tells whether an instance is a sandbox, or one that is being made: not one that is going, nor the past or the
// future of one that is being restored.
func shown(i api.Instance, all map[string]*known) bool {
	return i.Config[nameKey] != "" && i.Config[goingKey] == "" && !replaced(i, all) && (whole(i) || turn(i) == 0)
}

// whole tells whether a sandbox was made to its end: it was started once, of which Incus keeps a note that no copy inherits.
func whole(i api.Instance) bool { return i.Config["volatile.last_state.power"] != "" }

// older orders claims the same way for everyone who looks.
func older(a, b api.Instance) int {
	if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// describe reads a sandbox from its instance's keys, card and status.
func describe(inst *api.Instance) sandbox.Sandbox {
	s := sandbox.Sandbox{
		ID: inst.Name, Name: inst.Config[nameKey], Owner: inst.Config[ownerKey], From: inst.Config[fromKey],
		Egress: egress.Mode(inst.Config[egressKey]), Labels: map[string]string{}, CreatedAt: inst.CreatedAt,
	}
	if at, err := time.Parse(time.RFC3339, inst.Config[createdKey]); err == nil {
		s.CreatedAt = at
	}
	s.ExpiresAt, _ = time.Parse(time.RFC3339, inst.Config[expiresKey]) // one without a lease has none
	s.DestroyedAt = destroyedAt(inst.Config)
	s.Lineage, s.Reach = cmp.Or(inst.Config[lineageKey], first(*inst)), mark(inst.Config)
	_, s.Rules, _ = egressOf(inst.Config)                     // what can't be read allows nothing
	s.Limits.CPU, _ = strconv.Atoi(inst.Config["limits.cpu"]) // what can't be read isn't ours, as in the next ones
	s.Limits.Memory, _ = strconv.ParseInt(inst.Config["limits.memory"], 10, 64)
	s.Limits.Disk = diskOf(inst)
	s.Limits.Processes, _ = strconv.Atoi(inst.Config["limits.processes"])
	for key, value := range inst.Config {
		if label, ok := strings.CutPrefix(key, labelKeys); ok {
			s.Labels[label] = value
		}
	}
	status := inst.StatusCode
	switch {
	case !whole(*inst):
		s.State = sandbox.Creating
	case status == api.Running, status == api.Ready:
		s.State = sandbox.Running
	case status == api.Stopped, status == api.Stopping, status == api.Starting:
		s.State = sandbox.Stopped
	case status == api.Frozen, status == api.Freezing, status == api.Thawed:
		s.State = sandbox.Paused
	default:
		s.State = sandbox.Broken
	}
	s.Asleep = s.State == sandbox.Stopped && inst.Config[idleKey] != ""
	if s.State != sandbox.Stopped {
		s.Address = inst.Devices[card][addressKey]
	}
	return s
}

// lock keeps others of this process from changing an instance, until what it returns is called. It waits no longer than ctx
// lasts.
func (b *Backend) lock(ctx context.Context, id string) (unlock func(), err error) {
	l, _ := b.changing.LoadOrStore(id, semaphore.NewWeighted(1))
	lock := l.(*semaphore.Weighted)
	return func() { lock.Release(1) }, lock.Acquire(ctx, 1)
}

// change updates the keys of an instance, again when another writer was faster, or while Incus is busy with the instance. An
// error of edit ends it without a change.
//
// Incus checks the ETag when it takes a request and carries it out a moment later, so that of two requests at once both
// may pass and the later one undo the other. So this process makes one change of an instance at a time, and after each it
// looks whether the keys are what they were set to.
//
// meanwhile, unless it is nil, is called with the keys that Incus is just writing; whether it will succeed is open then.
func (b *Backend) change(ctx context.Context, id string, edit func(config map[string]string) error, meanwhile func(config map[string]string)) error {
	unlock, err := b.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	for {
		inst, etag, err := b.server.with(ctx).GetInstance(id)
		if err != nil {
			b.cache.touch(id)
			return err
		}
		before, put := maps.Clone(inst.Config), inst.Writable()
		if err := edit(put.Config); err != nil {
			return err
		}
		if maps.Equal(before, put.Config) {
			return nil
		}
		op, err := b.server.commit(ctx).UpdateInstance(id, put, etag)
		var aside sync.WaitGroup
		if meanwhile != nil && (err == nil || busy(err)) {
			aside.Go(func() { meanwhile(put.Config) })
		}
		if err == nil {
			_, err = finish(ctx, b.server, op, nil) // at once: Incus forgets an operation 5 s after its end
		}
		aside.Wait()
		b.cache.touch(id)
		switch {
		case err == nil || full(err):
			now, _, e := b.server.with(ctx).GetInstance(id)
			if e != nil || holds(now.Config, before, put.Config) {
				return e
			}
			if err != nil {
				return err
			}
		case busy(err):
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w (%w)", ctx.Err(), err)
			case <-time.After(20 * time.Millisecond):
			}
		case !changedMeanwhile(err):
			if _, _, e := b.server.with(ctx).GetInstance(id); missing(e) { // it went meanwhile, whatever the error says
				return e
			}
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// holds tells whether what differs between before and wanted is in config as wanted.
func holds(config, before, wanted map[string]string) bool {
	for key, value := range wanted {
		if before[key] != value && config[key] != value {
			return false
		}
	}
	for key := range before {
		if _, keep := wanted[key]; !keep && config[key] != "" {
			return false
		}
	}
	return true
}
