package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

const (
	maxMessage  = 16 << 20    // bytes of one message
	lastAnswers = time.Minute // that they are waited for once the client has gone
)

// Bridge passes on what a client says on in, one message a line, to the server, and what that answers to out, until in ends. It decides
// and keeps nothing but the session's ID, and begins a new session where the server lost its own.
func (r Remote) Bridge(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &bridge{remote: r, http: r.Client(), out: out}
	var asking, listening sync.WaitGroup
	defer func() { // what was asked is answered; what only listens has no end of its own
		late := time.AfterFunc(lastAnswers, cancel)
		asking.Wait()
		late.Stop()
		cancel()
		listening.Wait()
		b.goodbye()
	}()
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxMessage)
	for lines.Scan() {
		m := bytes.TrimSpace(lines.Bytes())
		if len(m) == 0 {
			continue
		}
		said := newMessage(bytes.Clone(m))
		if said.Method == string(mcp.MethodInitialize) {
			b.begin(ctx, said) // what follows is said in its session
			continue
		}
		if said.Method == "notifications/initialized" {
			b.pass(ctx, said)
			listening.Go(func() { b.listen(ctx) })
			continue
		}
		asking.Go(func() { b.pass(ctx, said) })
	}
	return lines.Err()
}

// bridge is one client's.
type bridge struct {
	remote Remote
	http   *http.Client

	mu       sync.Mutex // of out, and of what follows
	out      io.Writer
	session  string
	version  string
	hello    message // that began the session
	renewing sync.Mutex
}

// message is what of a message its way needs.
type message struct {
	raw    []byte
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Name string   `json:"name"`
		URI  string   `json:"uri"`
		Meta mcp.Meta `json:"_meta"`
	} `json:"params"`
}

func newMessage(raw []byte) message {
	m := message{raw: raw}
	_ = json.Unmarshal(raw, &m) // the server says what is wrong about it
	return m
}

// begin begins a session.
func (b *bridge) begin(ctx context.Context, hello message) {
	b.mu.Lock()
	b.session, b.version, b.hello = "", "", hello
	b.mu.Unlock()
	answer, err := b.post(ctx, hello, "", "")
	if err != nil {
		b.failed(ctx, hello, err)
		return
	}
	defer answer.Body.Close()
	b.mu.Lock()
	b.session = answer.Header.Get(mcpserver.HeaderKeySessionID)
	b.mu.Unlock()
	b.copy(ctx, hello, answer, true)
}

// renew begins the session anew, unless another call has done so, without the client's knowledge.
func (b *bridge) renew(ctx context.Context, lost string) error {
	b.renewing.Lock()
	defer b.renewing.Unlock()
	b.mu.Lock()
	now, hello := b.session, b.hello
	b.mu.Unlock()
	if now != lost {
		return nil
	}
	answer, err := b.post(ctx, hello, "", "")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusOK {
		return statusError(answer)
	}
	b.mu.Lock()
	b.session = answer.Header.Get(mcpserver.HeaderKeySessionID)
	session, version := b.session, b.version
	b.mu.Unlock()
	ready, err := b.post(ctx, newMessage([]byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)), session, version)
	if err == nil {
		_ = ready.Body.Close()
	}
	return err
}

// pass passes a message on, and its answer back.
func (b *bridge) pass(ctx context.Context, m message) {
	b.mu.Lock()
	session, version := b.session, b.version
	b.mu.Unlock()
	for try := 0; ; try++ {
		answer, err := b.post(ctx, m, session, version)
		if err != nil {
			b.failed(ctx, m, err)
			return
		}
		if answer.StatusCode == http.StatusNotFound && session != "" && try == 0 { // the server was started anew
			_ = answer.Body.Close()
			if err := b.renew(ctx, session); err != nil {
				b.failed(ctx, m, err)
				return
			}
			b.mu.Lock()
			session = b.session
			b.mu.Unlock()
			continue
		}
		b.copy(ctx, m, answer, false)
		_ = answer.Body.Close()
		return
	}
}

func (b *bridge) post(ctx context.Context, m message, session, version string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.remote.Base()+mcpPath, bytes.NewReader(m.raw))
	if err != nil {
		return nil, err
	}
	r.Header = b.remote.Header()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if modern := m.Params.Meta.ProtocolVersion(); modern != "" {
		// From 2026-07-28 on headers say what the body says, for those on the way.
		r.Header.Set(mcp.HeaderProtocolVersion, modern)
		r.Header.Set("Mcp-Method", m.Method)
		if name := m.Params.Name + m.Params.URI; name != "" {
			r.Header.Set("Mcp-Name", name)
		}
	} else {
		if session != "" {
			r.Header.Set(mcpserver.HeaderKeySessionID, session)
		}
		if version != "" {
			r.Header.Set(mcp.HeaderProtocolVersion, version)
		}
	}
	return b.http.Do(r)
}

// listen writes what the server says of itself, until ctx ends.
func (b *bridge) listen(ctx context.Context) {
	for ctx.Err() == nil {
		b.mu.Lock()
		session, version := b.session, b.version
		b.mu.Unlock()
		if session == "" {
			return
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.remote.Base()+mcpPath, nil)
		if err != nil {
			return
		}
		r.Header = b.remote.Header()
		r.Header.Set("Accept", "text/event-stream")
		r.Header.Set(mcpserver.HeaderKeySessionID, session)
		if version != "" {
			r.Header.Set(mcp.HeaderProtocolVersion, version)
		}
		if answer, err := b.http.Do(r); err == nil {
			if answer.StatusCode == http.StatusOK {
				b.events(answer.Body, false)
			}
			_ = answer.Body.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// goodbye ends the session.
func (b *bridge) goodbye() {
	b.mu.Lock()
	session := b.session
	b.mu.Unlock()
	if session == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, b.remote.Base()+mcpPath, nil)
	if err != nil {
		return
	}
	r.Header = b.remote.Header()
	r.Header.Set(mcpserver.HeaderKeySessionID, session)
	if answer, err := b.http.Do(r); err == nil { // else it ends when nobody uses it
		_ = answer.Body.Close()
	}
}
