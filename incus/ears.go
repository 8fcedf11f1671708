package incus

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"pixels/internal/canary"
)

// ears hear what arrives at this host, or in a namespace of it.
type ears struct {
	word    string
	tcp     net.Listener
	udp     net.PacketConn
	mu      sync.Mutex
	arrived []string
	held    map[net.Conn]bool // connections that a sandbox holds, and whether something came over them lately

	listening sync.WaitGroup
}

// open listens to TCP and UDP on one port of all addresses, which it returns.
func (e *ears) open() (port uint16, err error) {
	if e.tcp, err = net.Listen("tcp4", ":0"); err != nil {
		return 0, err
	}
	address := e.tcp.Addr().(*net.TCPAddr)
	if e.udp, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", address.Port)); err != nil {
		return 0, errors.Join(err, e.tcp.Close())
	}
	e.held = map[net.Conn]bool{}
	e.listening.Go(func() {
		for {
			conn, err := e.tcp.Accept()
			if err != nil {
				return
			}
			e.listening.Go(func() { e.serve(conn) })
		}
	})
	e.listening.Go(func() {
		b := make([]byte, 200)
		for {
			n, _, err := e.udp.ReadFrom(b)
			if err != nil {
				return
			}
			e.hear(string(b[:n]), "the host")
		}
	})
	return uint16(address.Port), nil
}

// serve hears a connection out: its first word, or, where that says that it is held, all until its end.
func (e *ears) serve(conn net.Conn) {
	defer conn.Close()
	defer e.note(func() { delete(e.held, conn) })
	for wait := time.Second; ; wait = time.Minute {
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		b := make([]byte, 200)
		n, err := conn.Read(b)
		if !strings.HasPrefix(string(b[:n]), canary.Held+e.word) {
			e.hear(string(b[:n]), conn.LocalAddr().String())
			return
		}
		e.note(func() { e.held[conn] = true })
		if err != nil {
			return
		}
	}
}

func (e *ears) note(do func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do()
}

func (e *ears) hear(text, at string) {
	if how, ok := strings.CutPrefix(text, e.word+" "); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.arrived = append(e.arrived, fmt.Sprintf("%s reaches %s", how, at))
	}
}

// heard returns what arrived.
func (e *ears) heard() []string {
	time.Sleep(200 * time.Millisecond) // for what is on its way
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.arrived)
}

// holding tells whether a connection is held.
func (e *ears) holding() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.held) > 0
}

// speak says the word over all connections that are held.
func (e *ears) speak() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for conn := range e.held {
		e.held[conn] = false
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte(e.word))
	}
}

// spoken returns which connections something came over since speak.
func (e *ears) spoken() (out []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for conn, lately := range e.held {
		if lately {
			out = append(out, conn.LocalAddr().String()+" hears a connection from before the mode was narrowed")
		}
	}
	return out
}

func (e *ears) close() {
	_, _ = e.tcp.Close(), e.udp.Close()
	e.mu.Lock()
	for conn := range e.held {
		_ = conn.Close()
	}
	e.mu.Unlock()
	e.listening.Wait()
}
