package streams

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"pixels/internal/fault"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// Client asks a server.
type Client struct {
	base    string      // of addresses
	header  http.Header // of each request
	http    *http.Client
	dialer  websocket.Dialer
	refused func(status int) error // why a request is not answered; nil for a status that says nothing
	woken   func(name string)
}

// NewClient returns a client whose connections dial makes, one for each call. woken hears of sandboxes that were started for a call; it
// may be nil.
func NewClient(dial func(ctx context.Context) (net.Conn, error), woken func(name string)) *Client {
	connect := func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	return &Client{
		base: "http://pixels", http: &http.Client{Transport: &http.Transport{DialContext: connect, DisableKeepAlives: true}},
		dialer: websocket.Dialer{NetDialContext: connect, ReadBufferSize: piece + 64, WriteBufferSize: piece + 64}, woken: woken,
	}
}

// NewRemote returns a client of a server at an address, as https://host:8765, which asks with a header. refused tells why a request of a
// status is not answered.
func NewRemote(base string, header http.Header, c *http.Client, secured *tls.Config, refused func(status int) error, woken func(name string)) *Client {
	return &Client{
		base: base, header: header, http: c, refused: refused, woken: woken,
		dialer: websocket.Dialer{Proxy: http.ProxyFromEnvironment, TLSClientConfig: secured, ReadBufferSize: piece + 64, WriteBufferSize: piece + 64},
	}
}

// get asks for something.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	return ask[T](ctx, c, http.MethodGet, path+"?"+query.Encode(), nil)
}

// ask makes a request and reads its answer.
func ask[T any](ctx context.Context, c *Client, method, path string, body any) (out T, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return out, err
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(b))
	if err != nil {
		return out, err
	}
	r.Header = c.header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	response, err := c.http.Do(r)
	if err != nil {
		return out, c.lost(ctx, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return out, c.unanswered(response.StatusCode)
	}
	var a answer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return out, c.lost(ctx, err)
	}
	c.tellWoken(a.Woken)
	if a.Failed != nil {
		return out, a.Failed.error(ctx)
	}
	err = json.Unmarshal(a.Result, &out)
	return out, err
}

// errOld means that the server knows no such request.
var errOld = errors.New("the service is of another version than this program: on its machine `setup --service` brings it up to date")

func (c *Client) unanswered(status int) error {
	if c.refused != nil {
		if err := c.refused(status); err != nil {
			return err
		}
	}
	return errOld
}

// lost is why there is no answer.
func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Errorf("the connection to the service broke off: %w", err)
}

func (c *Client) tellWoken(name string) {
	if name != "" && c.woken != nil {
		c.woken(name)
	}
}

// error is what failed, as it was on the server.
func (f *failure) error(ctx context.Context) error {
	switch {
	case f.Cancelled && ctx.Err() != nil:
		return ctx.Err()
	case f.Kind != "":
		return fault.Errorf(f.Kind, fault.Hint{}, "%s", f.Text)
	}
	return errors.New(f.Text)
}

// StartRun starts a command in the background and returns the ID of its run.
func (c *Client) StartRun(ctx context.Context, r manager.ExecRequest) (id string, err error) {
	return ask[string](ctx, c, http.MethodPost, runsPath, orderOf(r))
}

// Runs returns the runs of a sandbox, the oldest first.
func (c *Client) Runs(ctx context.Context, name string) ([]sandbox.Run, error) {
	return get[[]sandbox.Run](ctx, c, runsPath, url.Values{"name": {name}})
}

// RunOutput returns a part of the outputs of a run.
func (c *Client) RunOutput(ctx context.Context, id string, q sandbox.RunQuery) (sandbox.Run, error) {
	number := func(n int64) []string { return []string{strconv.FormatInt(n, 10)} }
	query := url.Values{"id": {id}, "stdout": number(q.Stdout), "stderr": number(q.Stderr), "limit": number(q.Limit), "wait": number(q.Wait.Milliseconds())}
	return get[sandbox.Run](ctx, c, outputPath, query)
}

// Sessions returns the console sessions of a user in a sandbox.
func (c *Client) Sessions(ctx context.Context, name, user string) ([]sandbox.Session, error) {
	return get[[]sandbox.Session](ctx, c, sessionsPath, url.Values{"name": {name}, "user": {user}})
}

// Glance has a look at what who calls has, which is on no record; as manager.Glance.
func (c *Client) Glance(ctx context.Context, of string) ([]manager.Glimpse, error) {
	return get[[]manager.Glimpse](ctx, c, glancePath, url.Values{"of": {of}})
}

// Stream runs a command to its end; as manager.Manager.Stream.
func (c *Client) Stream(ctx context.Context, r manager.ExecRequest, s manager.Streams) (manager.StreamResult, error) {
	return c.run(ctx, orderOf(r), s)
}

// Console joins streams with a shell in a sandbox; as manager.Manager.Console.
func (c *Client) Console(ctx context.Context, r manager.ConsoleRequest, s manager.Streams) (int, error) {
	got, err := c.run(ctx, order{Name: r.Name, User: r.User, Unkept: r.Unkept, Console: &sandbox.Console{Session: r.Session}}, s)
	return got.ExitCode, err
}

// endTime bounds how long the server may take to end a command that is given up.
const endTime = time.Minute

func (c *Client) run(ctx context.Context, o order, s manager.Streams) (manager.StreamResult, error) {
	conn, response, err := c.dialer.DialContext(ctx, strings.Replace(c.base, "http", "ws", 1)+execPath, c.header)
	switch {
	case errors.Is(err, websocket.ErrBadHandshake) && response != nil:
		return manager.StreamResult{}, c.unanswered(response.StatusCode)
	case err != nil:
		return manager.StreamResult{}, c.lost(ctx, err)
	}
	defer conn.Close()
	outputs := manager.Outputs{}
	s.Out, s.Err = outputs.To(s.Out), outputs.To(s.Err)
	o.Input = s.In != nil
	if s.Terminal != nil {
		o.Terminal = &terminal{s.Terminal.Type, s.Terminal.Size}
	}
	e := &end{conn: conn, free: window}
	e.more = sync.NewCond(&e.mu)
	defer e.close()
	if err := e.say(o); err != nil {
		return manager.StreamResult{}, c.lost(ctx, err)
	}
	defer context.AfterFunc(ctx, func() {
		_ = conn.SetReadDeadline(time.Now().Add(endTime))
		_ = e.say(said{Cancel: true}) // a connection that is gone has ended it
	})()
	if s.In != nil {
		go e.feed(s.In)
	}
	if s.Terminal != nil && s.Terminal.Resized != nil {
		over := make(chan struct{})
		defer close(over)
		go e.follow(s.Terminal.Resized, over)
	}
	for {
		t, err := e.hear(s)
		switch {
		case err != nil:
			return manager.StreamResult{}, cmp.Or(outputs.Err(), c.lost(ctx, err))
		case t.Failed != nil:
			return manager.StreamResult{}, t.Failed.error(ctx)
		case t.Ended != nil:
			return *t.Ended, nil
		}
		c.tellWoken(t.Woken)
	}
}

// end is the client's end of a connection.
type end struct {
	conn *websocket.Conn

	mu   sync.Mutex // of writing, and of what follows
	more *sync.Cond
	free int // bytes of input that may be sent
	over bool
}

func (e *end) say(v any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.conn.WriteJSON(v)
}

// hear passes on output until the server tells something else.
func (e *end) hear(s manager.Streams) (t told, err error) {
	for {
		kind, r, err := e.conn.NextReader()
		if err != nil {
			return t, err
		}
		if kind == websocket.TextMessage {
			if err := json.NewDecoder(r).Decode(&t); err != nil {
				return t, err
			}
			e.mu.Lock()
			e.free += t.Taken
			e.more.Broadcast()
			e.mu.Unlock()
			return t, nil
		}
		var which [1]byte
		if _, err := io.ReadFull(r, which[:]); err != nil {
			return t, err
		}
		to := s.Out
		if which[0] == stderr {
			to = s.Err
		}
		if to == nil {
			to = io.Discard
		}
		if _, err := io.Copy(to, r); err != nil {
			return t, err
		}
	}
}

// feed sends input as fast as the command takes it.
func (e *end) feed(from io.Reader) {
	b := make([]byte, piece)
	for {
		n, err := from.Read(b)
		e.mu.Lock()
		for e.free < n && !e.over {
			e.more.Wait()
		}
		if e.over {
			e.mu.Unlock()
			return
		}
		e.free -= n
		var failed error
		if n > 0 {
			failed = e.conn.WriteMessage(websocket.BinaryMessage, b[:n])
		}
		if err != nil && failed == nil {
			failed = e.conn.WriteJSON(said{End: true})
			err = errors.Join(err, failed)
		}
		e.mu.Unlock()
		if err != nil || failed != nil {
			return
		}
	}
}

func (e *end) follow(resized <-chan sandbox.TerminalSize, over <-chan struct{}) {
	for {
		select {
		case size := <-resized:
			_ = e.say(said{Size: &size}) // a connection that is gone is noticed where it is read
		case <-over:
			return
		}
	}
}

// close has what feeds it end.
func (e *end) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	e.more.Broadcast()
}
