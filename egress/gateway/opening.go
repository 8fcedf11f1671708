package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
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

// maxHello bounds a ClientHello with its records, in bytes: with keys against quantum computers it has some 2 kB.
const maxHello = 16 << 10

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
	var said []byte
	defer func() {
		o.bytes = said
		if o.kind == other && (how.onlyTLS || how.onlyHTTP) || o.kind == overHTTP && how.onlyTLS || o.kind == overTLS && how.onlyHTTP {
			o.kind = broken
		}
	}()
	more := func() error {
		said = slices.Grow(said, 512)
		n, err := c.Read(said[len(said):min(cap(said), maxHello)])
		said = said[:len(said)+n]
		if n > 0 {
			err = nil
		}
		return err
	}
	if more() != nil {
		return opening{}
	}
	_ = c.SetReadDeadline(time.Now().Add(min(how.patience, sayTime)))
	if said[0] == 22 { // a TLS handshake record (RFC 8446, 5.1)
		for !helloEnds(said) {
			if len(said) == maxHello || more() != nil {
				return opening{kind: broken}
			}
		}
		return hello(said)
	}
	if how.spoken != nil && how.spoken.Load() {
		return opening{kind: other}
	}
	for len(said) < maxLine && !request.Match(said) && mayBecome.Match(said) {
		if err := more(); errors.Is(err, os.ErrDeadlineExceeded) {
			return opening{kind: broken}
		} else if err != nil {
			break
		}
	}
	if request.Match(said) {
		return opening{kind: overHTTP}
	}
	return opening{kind: other}
}

// helloEnds tells whether what was said has a whole first handshake message, in however many records, or can't become one
// any more. A message begins with its type and its length in three bytes (RFC 8446, 4); a record with its type, a version
// and its length in two (5.1).
func helloEnds(said []byte) bool {
	var head [4]byte
	have := 0
	for len(said) >= 5 && said[0] == 22 {
		size := int(binary.BigEndian.Uint16(said[3:]))
		part := said[5:min(len(said), 5+size)]
		if have < len(head) {
			copy(head[have:], part)
		}
		have += len(part)
		if have >= len(head) && have-len(head) >= int(binary.BigEndian.Uint32(head[:])&0xffffff) {
			return true
		}
		said = said[5+len(part):]
		if len(part) < size || len(said) == 0 {
			return false // the rest of the record, or the next one, is to come
		}
	}
	return len(said) > 0 && said[0] != 22
}

var errHeard = errors.New("heard")

// parsing bounds how many are parsed at once: crypto/tls copies what it reads.
var parsing = make(chan struct{}, 8)

// hello reads a whole ClientHello. crypto/tls reads as strictly as it does for itself: two server names, for example, are
// no ClientHello. It does so on a goroutine of its own, whose stack ends with it.
func hello(said []byte) opening {
	parsing <- struct{}{}
	defer func() { <-parsing }()
	read := make(chan opening)
	go func() {
		o := opening{kind: broken}
		server := tls.Server(onlyReads{bytes.NewReader(said)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			o = opening{kind: overTLS, host: lower(h.ServerName), ech: slices.Contains(h.Extensions, 0xfe0d)} // RFC 9849
			return nil, errHeard
		}})
		_ = server.HandshakeContext(context.Background())
		read <- o
	}()
	return <-read
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
