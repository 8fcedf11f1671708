package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

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
}

type recent struct {
	list  []event
	bytes int
}

type event struct {
	id      int64
	stream  string
	message json.RawMessage
}

func newEvents() *events { return &events{bySession: map[string]*recent{}} }

// StoreEvent implements EventStore.
func (e *events) StoreEvent(_ context.Context, session, stream string, message json.RawMessage) (id string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.bySession[session]
	if r == nil {
		r = &recent{}
		e.bySession[session] = r
	}
	e.last++
	r.list = append(r.list, event{e.last, stream, append(json.RawMessage(nil), message...)})
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
	if r := e.bySession[session]; r != nil {
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
	delete(e.bySession, session)
	return nil
}
