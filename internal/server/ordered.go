package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
)

// ordered is the answer to a request without a session. What a call tells goes out at once, and in order, where the SDK has two that write
// it, each of which may come first or lose some. Once it has told something the answer is a stream, of which the SDK's is the last event.
type ordered struct {
	http.ResponseWriter

	mu    sync.Mutex
	begun bool // the stream
	last  bytes.Buffer
}

// tell writes an event.
func (w *ordered) tell(message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun {
		w.begun = true
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-cache")
		w.ResponseWriter.WriteHeader(http.StatusOK)
	}
	return w.event(b)
}

func (w *ordered) event(b []byte) error {
	_, err := w.ResponseWriter.Write(append(append([]byte("event: message\ndata: "), bytes.TrimSpace(b)...), "\n\n"...))
	if err == nil {
		err = http.NewResponseController(w.ResponseWriter).Flush()
	}
	return err
}

// WriteHeader implements http.ResponseWriter.
func (w *ordered) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *ordered) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun && strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		return w.last.Write(b)
	}
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *ordered) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// end writes the answer itself, where it is the last of a stream.
func (w *ordered) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last.Len() > 0 {
		_ = w.event(w.last.Bytes()) // a client that has gone needs none
	}
}
