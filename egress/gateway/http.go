package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

// maxHead bounds the head of a request, and of a response, in bytes.
const maxHead = 64 << 10

// serveHTTP passes requests on, each after a look at its Host. Both sides of it read and write HTTP by themselves, so that
// what the check read is what the server gets: no second reading of a header, a length or a line end is possible.
func (f *flow) serveHTTP(ctx context.Context, first []byte) {
	f.tell(Event{Verdict: Allowed})
	transport := &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return f.dial(ctx) },
		DisableCompression: true, ResponseHeaderTimeout: 0, MaxIdleConns: 1, MaxConnsPerHost: 0, MaxResponseHeaderBytes: maxHead,
	}
	defer transport.CloseIdleConnections()
	silence := stdlog.New(io.Discard, "", 0)
	proxy := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, BufferPool: &buffers, ErrorLog: silence,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", net.JoinHostPort(f.name, fmt.Sprint(f.port))
			r.Out.Host = r.In.Host
			for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} { // Rewrite took them out
				if v, ok := r.In.Header[header]; ok {
					r.Out.Header[header] = v
				}
			}
		},
		ErrorHandler: func(out http.ResponseWriter, _ *http.Request, err error) {
			var refused *refusedError
			if errors.As(err, &refused) {
				f.forbid(out, refused.reason)
				return
			}
			f.tell(Event{Verdict: Failed, Reason: err.Error()})
			http.Error(out, fmt.Sprintf("pixels: %.300s", err), http.StatusBadGateway)
		},
	}
	listener := newOneConn(&replay{f.client, bytes.NewReader(first)})
	server := &http.Server{
		ReadHeaderTimeout: sayTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHead, ErrorLog: silence,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				_ = listener.Close()
			}
		},
		Handler: http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
			switch {
			case in.Method == http.MethodConnect:
				f.forbid(out, "a tunnel by CONNECT, whose end can't be checked; connect to "+in.Host+" itself")
			case lower(in.Host) != f.name:
				f.forbid(out, fmt.Sprintf("HTTP for %q on an address of %s", in.Host, f.name))
			default:
				proxy.ServeHTTP(out, in)
				if in.Header.Get("Upgrade") != "" { // what was taken over by it has ended
					_ = listener.Close()
				}
			}
		}),
	}
	_ = server.Serve(listener)
	f.tell(Event{Verdict: Ended})
}

func (f *flow) forbid(out http.ResponseWriter, reason string) {
	f.tell(Event{Verdict: Denied, Reason: reason})
	out.Header().Set("Connection", "close")
	http.Error(out, f.denial(reason), http.StatusForbidden)
}

// oneConn is a listener that has one connection, and ends when it is closed.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func newOneConn(c net.Conn) *oneConn {
	l := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{}), addr: c.LocalAddr()}
	l.conn <- c
	return l
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.addr }

// bodyBuffer is how much of a body is copied at once, in bytes: with less, system calls cost more than copying.
const bodyBuffer = 64 << 10

// buffers are those that bodies are copied with.
var buffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, bodyBuffer)
}

func (b *bufferPool) Put(p []byte) { b.pool.Put(&p) }
