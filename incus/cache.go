package incus

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/lxc/incus/v6/shared/api"
)

// cache knows the instances of the project, so that looking a sandbox up costs no call. Events of Incus tell which
// instances changed; those are read anew when someone asks next. While no events come it knows nothing, and every question
// is a call.
type cache struct {
	server *daemon

	mu      sync.Mutex
	live    bool              // events come, so that what isn't marked as changed is right
	gaps    int               // how often they stopped to come
	known   map[string]*known // nil until all are read
	changed map[string]bool   // IDs of instances to be read anew
	busy    map[string]bool   // what was changed and is just being read
	read    time.Time         // when all were
	reading *reading          // that is under way, or nil
	began   int               // how many readings were begun
}

// reading reads anew, for all who wait for it.
type reading struct {
	number int
	done   chan struct{} // closed when the others are set
	all    map[string]*known
	err    error
}

// known is what is known of one instance. It is never written to once others can see it.
type known struct {
	api.Instance
}

// From manyChanged changed instances on a list costs less than to read each. After maxAge all are read even if no event
// said so: that of a connection which died without a word is never heard.
const (
	manyChanged = 16
	maxAge      = 30 * time.Second
)

// follow keeps the cache fed until ctx ends.
func (c *cache) follow(ctx context.Context, config Config) {
	for ctx.Err() == nil {
		c.listen(ctx, config)
		c.mu.Lock()
		c.live, c.known, c.changed = false, nil, nil
		c.gaps++
		c.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// listen feeds the cache from a connection of its own, and returns when that ends.
func (c *cache) listen(ctx context.Context, config Config) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The client's own listeners keep their connection for a minute after their end.
	events, err := c.server.events(ctx, "/events?"+url.Values{"type": {api.EventTypeLifecycle}, "project": {config.Project}}.Encode())
	if err != nil {
		return
	}
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { _ = events.Close() })
	defer stop()
	c.mu.Lock()
	c.live = true
	c.mu.Unlock()
	for {
		var event api.Event
		if err := events.ReadJSON(&event); err != nil {
			return // however it ended: the cache knows nothing from here on
		}
		c.hear(event)
	}
}

// hear takes note of an event. Its source says which instance it is about: /1.0/instances/ID, with more behind.
func (c *cache) hear(event api.Event) {
	var e api.EventLifecycle
	if json.Unmarshal(event.Metadata, &e) != nil {
		return
	}
	id, ok := strings.CutPrefix(e.Source, "/1.0/instances/")
	if !ok || e.Action == api.EventLifecycleInstanceExec || strings.HasPrefix(e.Action, "instance-file-") {
		return
	}
	if end := strings.IndexAny(id, "/?"); end >= 0 {
		id = id[:end]
	}
	c.touch(id)
}

// touch marks an instance as changed.
func (c *cache) touch(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touchLocked(id)
}

func (c *cache) touchLocked(id string) {
	if c.live {
		if c.changed == nil {
			c.changed = map[string]bool{}
		}
		c.changed[id] = true
	}
}

// instances returns all instances, by ID. The map and what is in it must not be written to.
func (c *cache) instances(ctx context.Context) (map[string]*known, error) {
	c.mu.Lock()
	before := c.began
	c.mu.Unlock()
	for {
		c.mu.Lock()
		r := c.reading
		if r == nil {
			if c.live && c.known != nil && len(c.changed) == 0 && time.Since(c.read).Abs() <= maxAge {
				defer c.mu.Unlock()
				return c.known, nil
			}
			r = c.readAnew()
		}
		c.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		// One that began before we asked may have missed something. Should it have failed, ours would as well.
		if r.number > before || r.err != nil {
			return r.all, r.err
		}
	}
}

// readAnew begins to read what changed, or all. c.mu is held. No single caller's end ends it, for others may wait for it, too.
func (c *cache) readAnew() *reading {
	live, gaps, now, changed := c.live, c.gaps, c.known, c.changed
	all := !live || now == nil || len(changed) >= manyChanged || time.Since(c.read).Abs() > maxAge
	if live {
		// What changes from here on is read the next time.
		c.changed, c.busy = nil, changed
	}
	c.began++
	r := &reading{number: c.began, done: make(chan struct{}), all: map[string]*known{}}
	c.reading = r
	started := time.Now()
	go func() {
		ctx := context.Background()
		if all {
			r.err = c.readAll(ctx, r.all)
		} else {
			maps.Copy(r.all, now)
			r.err = c.readSome(ctx, r.all, changed)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.busy, c.reading = nil, nil
		switch {
		case r.err != nil && c.live:
			c.known = nil
		case r.err == nil && live && c.live && gaps == c.gaps:
			c.known = r.all
			if all {
				c.read = started
			}
		}
		close(r.done)
	}()
	return r
}

// lately returns all instances as they were when someone last asked, without a call; nil while no events come.
func (c *cache) lately() map[string]*known {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.live {
		return nil
	}
	return c.known
}

// instance returns one instance, nil when there is none. It does not wait until others that changed were read.
func (c *cache) instance(ctx context.Context, id string) (*known, error) {
	c.mu.Lock()
	k := c.known[id]
	good := c.live && !c.changed[id] && !c.busy[id] && time.Since(c.read).Abs() <= maxAge
	c.mu.Unlock()
	if k != nil && good {
		return k, nil
	}
	all, err := c.instances(ctx)
	return all[id], err
}

// fresh returns all instances, and misses none that was there when it was called: it asks which there are, and reads those
// of which no event told yet.
func (c *cache) fresh(ctx context.Context) (map[string]*known, error) {
	ids, err := c.server.with(ctx).GetInstanceNames(api.InstanceTypeContainer)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.live && c.known != nil {
		there := map[string]bool{}
		for _, id := range ids {
			there[id] = true
			if c.known[id] == nil {
				c.touchLocked(id)
			}
		}
		for id := range c.known {
			if !there[id] {
				c.touchLocked(id)
			}
		}
	}
	c.mu.Unlock()
	return c.instances(ctx)
}

func (c *cache) readAll(ctx context.Context, into map[string]*known) error {
	list, err := c.server.with(ctx).GetInstances(api.InstanceTypeContainer)
	for _, inst := range list {
		into[inst.Name] = &known{Instance: inst}
	}
	return orTooOld(ctx, c.server, err)
}

// readSome reads instances anew. A sandbox's latest instance is the last of its line to go, so that when it is gone, what
// was read of the others before counts no more: the older ones would seem to be the sandbox.
func (c *cache) readSome(ctx context.Context, into map[string]*known, ids map[string]bool) error {
	gone := map[string]bool{}
	read := func(id string) error {
		inst, _, err := c.server.with(ctx).GetInstance(id)
		old := into[id]
		if missing(err) {
			if old != nil {
				gone[first(old.Instance)] = true
			}
			delete(into, id)
			return nil
		}
		if err != nil {
			return err
		}
		into[id] = &known{Instance: *inst}
		return nil
	}
	for id := range ids {
		if err := read(id); err != nil {
			return err
		}
	}
	for id, k := range into {
		if gone[first(k.Instance)] {
			if err := read(id); err != nil {
				return err
			}
		}
	}
	return nil
}
