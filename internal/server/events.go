package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

// maxCalls is of how many calls of a session the streams are kept, so that they can be resumed.
const maxCalls = 64

// Bounds of the events that are kept of one session, so that a client whose connection broke can have them again.
const (
	maxEvents     = 256
	maxEventBytes = 4 << 20
)

// events keeps the latest events of each session. It implements the SDK's EventStore.
type events struct {
	mu        sync.Mutex
	last      int64
	bySession map[string]*recent
	under     map[string]int // calls under way, by session
}

type recent struct {
	calls []string // sessions of calls that had events
	list  []event
	bytes int
}

type event struct {
	id      int64
	call    string // session of the call
	stream  string
	message json.RawMessage
}

func newEvents() *events { return &events{bySession: map[string]*recent{}, under: map[string]int{}} }

// StoreEvent implements EventStore.
func (e *events) StoreEvent(_ context.Context, session, stream string, message json.RawMessage) (id string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	client := ownerOf(session)
	r := e.bySession[client]
	if r == nil {
		r = &recent{}
		e.bySession[client] = r
	}
	if session != client && !slices.Contains(r.calls, session) {
		r.calls = append(r.calls, session)
	}
	e.last++
	r.list = append(r.list, event{e.last, session, stream, append(json.RawMessage(nil), message...)})
	r.bytes += len(message)
	for len(r.list) > maxEvents || r.bytes > maxEventBytes && len(r.list) > 1 {
		r.bytes -= len(r.list[0].message)
		r.list = r.list[1:]
	}
	return strconv.FormatInt(e.last, 10), nil
}

// ReplayEventsAfter implements EventStore.
func (e *events) ReplayEventsAfter(_ context.Context, session, after string, send func(id string, message json.RawMessage) error) (stream string, err error) {
	e.mu.Lock()
	var list []event
	if r := e.bySession[ownerOf(session)]; r != nil {
		list = append(list, r.list...)
	}
	e.mu.Unlock()
	id, _ := strconv.ParseInt(after, 10, 64) // 0, which none has, where it is no number
	for i, from := range list {
		if from.id != id {
			continue
		}
		for _, later := range list[i+1:] {
			if later.stream != from.stream {
				continue
			}
			if err := send(strconv.FormatInt(later.id, 10), later.message); err != nil {
				return "", err
			}
		}
		return from.stream, nil
	}
	return "", fmt.Errorf("%w: %s", mcpserver.ErrUnknownEventID, after)
}

// PurgeSession implements EventStore.
func (e *events) PurgeSession(_ context.Context, session string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if session == ownerOf(session) {
		delete(e.bySession, session)
	} else if r := e.bySession[ownerOf(session)]; r != nil {
		r.calls = slices.DeleteFunc(r.calls, func(call string) bool { return call == session })
	}
	return nil
}

// calls are the sessions of calls of which the SDK keeps something.
func (e *events) calls(session string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.bySession[session]; r != nil {
		return slices.Clone(r.calls)
	}
	return nil
}

// working notes that a call is under way, until done is called.
func (e *events) working(call string) (done func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.under[call]++
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.under[call]--; e.under[call] == 0 {
			delete(e.under, call)
		}
	}
}

// oldest is the session of a call that is over, where more of them are kept than are to be.
func (e *events) oldest(session string) (call string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.bySession[session]
	if r == nil || len(r.calls) <= maxCalls {
		return "", false
	}
	for _, call := range r.calls {
		if e.under[call] == 0 {
			return call, true
		}
	}
	return "", false
}

// callOf is the session in which an event was; that of the client where it is not known.
func (e *events) callOf(session, id string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, _ := strconv.ParseInt(id, 10, 64) // 0, which none has, where it is no number
	if r := e.bySession[session]; r != nil {
		for _, event := range r.list {
			if event.id == n {
				return event.call
			}
		}
	}
	return session
}
