package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"sync/atomic"
	"time"
)

// kind is what a client speaks, as far as its first bytes show.
type kind int

const (
	silent kind = iota // it went, or said too little for too long
	other              // neither TLS nor HTTP
	broken             // not what its port or its first bytes promise
	overTLS
	overHTTP
)

// opening is how a client began.
type opening struct {
	kind  kind
	host  string // of TLS: the server name, in the form of names
	ech   bool   // of TLS: an Encrypted Client Hello is in it, real or feigned
	bytes []byte // all that was read, to be passed on
}

// maxHello bounds a ClientHello, in bytes: with keys against quantum computers it has some 2 kB.
const maxHello = 64 << 10

// maxLine bounds the first line of a request, in bytes, as servers do.
const maxLine = 8 << 10

// request is how the first line of HTTP begins, and mayBecome what may yet become that. Empty lines before it are ignored
// by servers (RFC 9112, 2.2), so they are here.
var (
	request   = regexp.MustCompile(`(?i)^[\r\n]*[a-z-]{1,20} [^\n]*HTTP/`)
	mayBecome = regexp.MustCompile(`(?i)^[\r\n]*([a-z-]{0,20}|[a-z-]{1,20} [^\n]*)$`)
)

// listening says how to listen.
type listening struct {
	patience          time.Duration // for the first bytes, and again for the rest of what they begin
	onlyTLS, onlyHTTP bool          // all else is broken
	spoken            *atomic.Bool  // set once the server said something
}

// listen reads as much of what a client says first as it takes to know what it speaks. What may yet become a request, but
// doesn't in time, is broken: else a client that is slow enough would get past.
func listen(c *net.TCPConn, how listening) (o opening) {
	_ = c.SetReadDeadline(time.Now().Add(how.patience))
	defer c.SetReadDeadline(time.Time{})
	var read bytes.Buffer
	defer func() {
		o.bytes = read.Bytes()
		if o.kind == other && (how.onlyTLS || how.onlyHTTP) || o.kind == overHTTP && how.onlyTLS || o.kind == overTLS && how.onlyHTTP {
			o.kind = broken
		}
	}()
	from := io.TeeReader(io.LimitReader(c, maxHello), &read)
	first := make([]byte, 32)
	n, err := from.Read(first)
	if err != nil && n == 0 {
		return opening{}
	}
	_ = c.SetReadDeadline(time.Now().Add(min(how.patience, sayTime)))
	if first[0] == 22 { // a TLS handshake record (RFC 8446, 5.1)
		return hello(io.MultiReader(bytes.NewReader(bytes.Clone(read.Bytes())), from))
	}
	if how.spoken != nil && how.spoken.Load() {
		return opening{kind: other}
	}
	for read.Len() < maxLine && !request.Match(read.Bytes()) && mayBecome.Match(read.Bytes()) {
		if _, err := from.Read(first); errors.Is(err, os.ErrDeadlineExceeded) {
			return opening{kind: broken}
		} else if err != nil {
			break
		}
	}
	if request.Match(read.Bytes()) {
		return opening{kind: overHTTP}
	}
	return opening{kind: other}
}

var errHeard = errors.New("heard")

// hello reads a ClientHello, in however many records it comes. crypto/tls reads as strictly as it does for itself: two
// server names, for example, are no ClientHello.
func hello(from io.Reader) opening {
	o := opening{kind: broken}
	server := tls.Server(onlyReads{from}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		o = opening{kind: overTLS, host: lower(h.ServerName), ech: slices.Contains(h.Extensions, 0xfe0d)} // RFC 9849
		return nil, errHeard
	}})
	_ = server.HandshakeContext(context.Background())
	return o
}

// onlyReads is a connection of which crypto/tls can read a ClientHello and no more.
type onlyReads struct{ io.Reader }

func (onlyReads) Write([]byte) (int, error)        { return 0, errHeard }
func (onlyReads) Close() error                     { return nil }
func (onlyReads) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (onlyReads) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (onlyReads) SetDeadline(time.Time) error      { return nil }
func (onlyReads) SetReadDeadline(time.Time) error  { return nil }
func (onlyReads) SetWriteDeadline(time.Time) error { return nil }
