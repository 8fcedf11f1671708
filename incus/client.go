package incus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	client "github.com/lxc/incus/v6/client"
)

// How long Incus may take for the answer to one call. It answers within milliseconds as a rule, and what takes longer is an
// operation, for which one waits in calls of a second. Calls of set-up make a pool, say, and an upload is as long as its file.
const (
	callLimit   = 15 * time.Second
	setupLimit  = 2 * time.Minute
	uploadLimit = 10 * time.Minute
)

// noAnswer means that Incus took a call and did not answer it in time. What was asked for may be done still.
type noAnswer struct{ after time.Duration }

func (e noAnswer) Error() string {
	return fmt.Sprintf("it took the call, and gave no answer within %s", e.after)
}

// daemon is an Incus. Each call of it has its caller's context, and a limit.
type daemon struct {
	bind    func(context.Context) client.InstanceServer
	project string
	limit   time.Duration
}

// newDaemon takes over a client, whose calls are limited from now on.
func newDaemon(c client.InstanceServer, project string, limit time.Duration) (*daemon, error) {
	hc, err := c.GetHTTPClient()
	if err != nil {
		return nil, err
	}
	transport, ok := hc.Transport.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("the calls of a client can't be limited whose transport is a %T", hc.Transport)
	}
	hc.Transport = limited{transport, limit}
	return &daemon{project: project, limit: limit, bind: func(ctx context.Context) client.InstanceServer {
		// WithContext changes what it is called on; UseProject makes a copy.
		return c.UseProject(project).(*client.ProtocolIncus).WithContext(ctx)
	}}, nil
}

// with returns the client for calls that ask. They end with ctx.
func (d *daemon) with(ctx context.Context) client.InstanceServer { return d.bind(ctx) }

// commit returns the client for calls that change something. They outlive ctx, up to their limit: of one that was cut off
// nobody knows whether it was carried out.
func (d *daemon) commit(ctx context.Context) client.InstanceServer {
	return d.with(context.WithoutCancel(ctx))
}

// websocket opens a websocket of an operation.
func (d *daemon) websocket(ctx context.Context, operation, secret string) (*websocket.Conn, error) {
	return opened(ctx, d.limit, func() (*websocket.Conn, error) { return d.with(ctx).GetOperationWebsocket(operation, secret) })
}

// events opens a websocket with events; path says which.
func (d *daemon) events(ctx context.Context, path string) (*websocket.Conn, error) {
	return opened(ctx, d.limit, func() (*websocket.Conn, error) { return d.with(ctx).RawWebsocket(path) })
}

// sftp opens a connection to the file server of an instance.
func (d *daemon) sftp(ctx context.Context, id string) (net.Conn, error) {
	return opened(ctx, d.limit, func() (net.Conn, error) { return d.with(ctx).GetInstanceFileSFTPConn(id) })
}

// opened opens a connection by a call that knows no context and no limit. What comes too late is closed.
func opened[T io.Closer](ctx context.Context, after time.Duration, open func() (T, error)) (T, error) {
	type result struct {
		conn T
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := open()
		done <- result{conn, err}
	}()
	limit := time.NewTimer(after)
	defer limit.Stop()
	var err error
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
		err = noAnswer{after}
	}
	go func() {
		if r := <-done; r.err == nil {
			_ = r.conn.Close()
		}
	}()
	var none T
	return none, err
}

// limited is a transport that gives each call so much time until its answer is read.
type limited struct {
	transport *http.Transport
	limit     time.Duration
}

var _ client.HTTPTransporter = limited{}

// Transport implements client.HTTPTransporter. The client opens websockets by it.
func (l limited) Transport() *http.Transport { return l.transport }

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	limit := l.limit
	if req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/1.0/images") {
		limit = max(limit, uploadLimit)
	}
	over := noAnswer{limit}
	ctx, cancel := context.WithTimeoutCause(req.Context(), limit, over)
	resp, err := l.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		defer cancel()
		return nil, why(ctx, err)
	}
	resp.Body = &body{resp.Body, func(err error) error { return why(ctx, err) }, cancel}
	return resp, nil
}

// why is the error of a call: that of its limit when that was the reason.
func why(ctx context.Context, err error) error {
	if over := (noAnswer{}); errors.As(context.Cause(ctx), &over) {
		return over
	}
	return err
}

// body is that of an answer, whose reading counts as part of the call.
type body struct {
	io.ReadCloser
	why  func(error) error
	done context.CancelFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = b.why(err)
	}
	return n, err
}

func (b *body) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}
