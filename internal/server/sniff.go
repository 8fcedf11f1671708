package server

import (
	"bufio"
	"context"
	"errors"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// userConn is a connection of a user, of which the first bytes were looked at.
type userConn struct {
	net.Conn
	read  *bufio.Reader
	owner string
}

func (c userConn) Read(b []byte) (int, error) { return c.read.Read(b) }

// speaksHTTP waits for the first byte of a connection. A message of MCP is an object of JSON; a request of HTTP begins with the name of its
// method, in capital letters. Who reads next hears of an error.
func (c userConn) speaksHTTP() bool {
	first, err := c.read.Peek(1)
	return err == nil && first[0] >= 'A' && first[0] <= 'Z'
}

// httpSide serves the connections that speak HTTP.
type httpSide struct {
	server  *http.Server
	conns   chan net.Conn
	done    chan struct{}
	working sync.RWMutex // read by each request: what was upgraded is none of the server's
}

func newHTTPSide(ctx context.Context, handler http.Handler, log zerolog.Logger) *httpSide {
	h := &httpSide{conns: make(chan net.Conn), done: make(chan struct{})}
	h.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !h.working.TryRLock() {
				return // it is closing
			}
			defer h.working.RUnlock()
			handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, ErrorLog: stdlog.New(log, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return WithOwner(ctx, c.(userConn).owner) },
	}
	go func() {
		if err := h.server.Serve(h); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			log.Error().Err(err).Msg("http")
		}
	}()
	return h
}

func (h *httpSide) serve(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.done:
		_ = conn.Close()
	}
}

// close waits for the requests under way, whose context has ended.
func (h *httpSide) close() {
	_ = h.server.Close()
	h.working.Lock()
}

// Accept implements net.Listener.
func (h *httpSide) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *httpSide) Close() error {
	close(h.done)
	return nil
}

// Addr implements net.Listener.
func (h *httpSide) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }
