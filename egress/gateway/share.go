package gateway

import "time"

// The gateway's memory is shared out, so that no sandbox takes it from the others: each connection has a cost in bytes, for
// buffers, goroutines and what the kernel holds. A sandbox has a share, which shrinks once half of all is taken. What goes
// beyond is reset unread. The instance has 256 MiB (incus.gatewayRAM), and the program itself takes some 30.
const (
	maxBytes      = 144 << 20 // of all sandboxes
	maxBytesOfOne = 32 << 20
	leastBytes    = 1 << 20   // of one, however many there are
	plainCost     = 64 << 10  // of a connection whose bytes are passed on
	httpCost      = 128 << 10 // of one whose requests are read, beside that
	dnsCost       = 96 << 10  // of a connection to port 53, whose questions may be that long
)

// How many denials are told to the client in its protocol at once, which takes reading what it says. More are resets.
const (
	maxDenying      = 64
	maxDenyingOfOne = 32
)

// fullReason says of a connection that there was no room for it.
const fullReason = "it has as many connections as its share of the gateway's memory is for; close some"

// charge takes bytes out of a sandbox's share, and tells whether there were so many. g.mu is held.
func (g *Gateway) charge(w *wire, bytes int) bool {
	share := maxBytesOfOne
	if g.bytes > maxBytes/2 {
		share = min(share, max(leastBytes, maxBytes/2/max(1, len(g.bySandbox))))
	}
	if w.bytes+bytes > share || g.bytes+bytes > maxBytes {
		return false
	}
	w.bytes += bytes
	g.bytes += bytes
	return true
}

// giveBack gives back what was charged. g.mu is held.
func (g *Gateway) giveBack(w *wire, bytes int) {
	w.bytes -= bytes
	g.bytes -= bytes
}

// full takes note of a connection that there was no room for. Those who watch hear of many at once: a flood of them would
// keep other sandboxes' events away. g.mu is held.
func (g *Gateway) full(w *wire) {
	e := Event{Verdict: Denied, Reason: fullReason, Sandbox: w.sandbox, Time: time.Now().UTC()}
	w.remember(e)
	if w.fulls++; w.fulls > 1 {
		return
	}
	time.AfterFunc(fullEvery, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if w.state == Taken {
			e.Count = w.fulls
			g.announce(w, e)
		}
		w.fulls = 0
	})
}

// fullEvery is how often it is told that there was no room.
const fullEvery = 500 * time.Millisecond

// mayDeny takes a place for telling a client of a denial, if there is one. done gives it back.
func (f *flow) mayDeny() (done func(), ok bool) {
	g, w := f.g, f.w
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.denying >= maxDenying || w.denying >= maxDenyingOfOne {
		return nil, false
	}
	g.denying++
	w.denying++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.denying--
		w.denying--
	}, true
}

// A watcher's queue is shared out, too.
const (
	maxEvents      = 1024 // that wait for one who watches
	maxEventsOfOne = 128  // of one sandbox, and a quarter of that once half of the queue is taken
)

// watcher is one who hears of events.
type watcher struct {
	events chan Event
	queued map[*wire]int // how many of each wire's wait; guarded by Gateway.mu
	whose  chan *wire    // of each event in events
}

func newWatcher() *watcher {
	return &watcher{events: make(chan Event, maxEvents), whose: make(chan *wire, maxEvents), queued: map[*wire]int{}}
}

// put queues an event unless the wire has its share of the queue. Who doesn't read misses some; the numbers show it. g.mu
// is held, so that both channels are in the same order.
func (r *watcher) put(w *wire, e Event) {
	share := maxEventsOfOne
	if len(r.events) > maxEvents/2 {
		share /= 4
	}
	if r.queued[w] >= share || len(r.events) == maxEvents || len(r.whose) == maxEvents {
		return
	}
	r.queued[w]++
	r.events <- e
	r.whose <- w
}

// took takes note that the oldest event is no longer queued. g.mu is held.
func (r *watcher) took() {
	w := <-r.whose
	if r.queued[w]--; r.queued[w] == 0 {
		delete(r.queued, w)
	}
}
