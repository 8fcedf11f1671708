package server

import (
	"context"
	"errors"
	"sync"
)

// Bounds of one owner's calls, and of what one client that speaks in lines asks at once.
const (
	atOnce     = 64   // calls that are worked on
	maxWaiting = 1024 // that wait for their turn besides
)

var errTooMany = errors.New("too many calls wait for their answers: send fewer at once")

// turns lets each owner have so many calls worked on at once, so that none takes all of a server.
type turns struct {
	mu sync.Mutex
	of map[string]*owners
}

// owners are the calls of one owner.
type owners struct {
	count int
	turn  chan struct{}
}

// take waits for an owner's turn. done must be called at the end of the call.
func (t *turns) take(ctx context.Context, owner string) (done func(), err error) {
	t.mu.Lock()
	o := t.of[owner]
	if o == nil {
		if t.of == nil {
			t.of = map[string]*owners{}
		}
		o = &owners{turn: make(chan struct{}, atOnce)}
		t.of[owner] = o
	}
	if o.count >= atOnce+maxWaiting {
		t.mu.Unlock()
		return nil, errTooMany
	}
	o.count++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if o.count--; o.count == 0 {
			delete(t.of, owner)
		}
	}
	select {
	case o.turn <- struct{}{}:
		return func() { <-o.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
