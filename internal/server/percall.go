package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// The SDK gives a session one channel for all that is told in it, from which each of its streams takes what it can get: the progress of a
// call may go to the stream of another one, and be lost with it. So each call is a session of its own to the SDK, named after the client's
// and the call's ID. Its streams are that call's alone; what all sessions are told goes to the client's own.

// callMark stands between the two.
const callMark = "#"

// ownerOf is the client's session that a call's belongs to.
func ownerOf(id string) string {
	session, _, _ := strings.Cut(id, callMark)
	return session
}

// percall names the session of the call that a message makes, or cancels; the client's own for all else, and for tools that ask it something:
// the SDK puts questions on no other stream.
func percall(session string, message []byte, asking []string) string {
	var m struct {
		ID     json.RawMessage
		Method string
		Params struct {
			Name      string
			RequestID json.RawMessage `json:"requestId"`
		}
	}
	if json.Unmarshal(message, &m) != nil {
		return session
	}
	id := m.ID
	switch m.Method {
	case string(mcp.MethodNotificationCancelled):
		id = m.Params.RequestID
	case string(mcp.MethodToolsCall):
		if slices.Contains(asking, m.Params.Name) {
			return session
		}
	default:
		return session
	}
	var compact bytes.Buffer
	if len(id) == 0 || json.Compact(&compact, id) != nil || strings.ContainsAny(compact.String(), "\r\n") {
		return session
	}
	return session + callMark + compact.String()
}

// whole reads a request's body, and leaves it there.
func whole(r *http.Request) []byte {
	body, _ := io.ReadAll(r.Body) // the guard has read it already
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body
}

// forget has the SDK forget a session, and what it keeps of it.
func (h *HTTP) forget(id string) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodDelete, mcpPath, nil)
	if err != nil {
		return
	}
	r.Header.Set(mcpserver.HeaderKeySessionID, id)
	h.stream.ServeHTTP(nobody{http.Header{}}, r)
}

// nobody is the reader of an answer that nobody reads.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header              { return n.header }
func (n nobody) Write(b []byte) (int, error)      { return len(b), nil }
func (n nobody) WriteHeader(int)                  {}
func (n nobody) Flush()                           {}
func (n nobody) SetWriteDeadline(time.Time) error { return nil }

// endSession ends a client's session, with those of its calls.
func (h *HTTP) endSession(id string) {
	h.sessions.end(id)
	for _, call := range h.events.calls(id) {
		h.forget(call)
	}
	h.forget(id)
}

// sweepSessions ends those that nobody uses, until ctx ends.
func (h *HTTP) sweepSessions(ctx context.Context) {
	tick := time.NewTicker(max(h.config.sessionIdle/4, 50*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, id := range h.sessions.idle(h.config.sessionIdle) {
				h.endSession(id)
			}
		}
	}
}
