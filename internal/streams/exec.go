package streams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"pixels/internal/fault"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// Bounds of how long a client may take to say what it wants, and to go when it was told how that ended.
const (
	orderTime  = 10 * time.Second
	lingerTime = 5 * time.Second
)

var upgrader = websocket.Upgrader{ReadBufferSize: piece + 64, WriteBufferSize: piece + 64}

// exec runs a command with the streams of a connection. A connection that breaks off ends the command, but no session.
func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has been answered
	}
	defer conn.Close()
	c, begun := s.caller(r), time.Now()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	p := &peer{conn: conn, cancel: cancel, gone: make(chan struct{})}
	o, err := p.order()
	var got manager.StreamResult
	if err == nil {
		c.Woken = func(name string) { p.tell(told{Woken: name}) }
		got, err = s.run(ctx, c, o, p)
	}
	last := told{Failed: s.said(r, c, begun, err)}
	if err == nil {
		last.Ended = &got
	}
	p.tell(last)
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	if !p.listening {
		return
	}
	// TCP drops what a client hasn't read yet when the connection is closed before all that it sent was read.
	select {
	case <-p.gone:
	case <-time.After(lingerTime):
	}
}

func (s *Server) run(ctx context.Context, c manager.Caller, o order, p *peer) (manager.StreamResult, error) {
	resized := make(chan sandbox.TerminalSize, 1)
	streams := manager.Streams{Out: output{p, stdout}, Err: output{p, stderr}}
	if o.Terminal != nil {
		streams.Terminal = &sandbox.Terminal{Type: o.Terminal.Type, Size: o.Terminal.Size, Resized: resized}
	}
	if o.Input {
		p.input = newInput(func(n int) { p.tell(told{Taken: n}) })
		defer p.input.close(io.ErrClosedPipe)
		streams.In = p.input
	}
	p.listening = true
	go p.listen(resized)
	if o.Console != nil {
		code, err := s.manager.Console(ctx, c, manager.ConsoleRequest{Name: o.Name, Session: o.Console.Session, User: o.User, Unkept: o.Unkept}, streams)
		return manager.StreamResult{ExitCode: code}, err
	}
	return s.manager.Stream(ctx, c, o.request(), streams)
}

// peer is the client at the other end of a connection.
type peer struct {
	conn   *websocket.Conn
	cancel context.CancelFunc
	input  *input // nil without one

	listening bool
	gone      chan struct{} // closed when a client that is listened to has gone
	writing   sync.Mutex
}

func (p *peer) order() (o order, err error) {
	p.conn.SetReadLimit(maxOrder)
	_ = p.conn.SetReadDeadline(time.Now().Add(orderTime)) // fails on a connection that is gone, as the next line does
	if err := p.conn.ReadJSON(&o); err != nil {
		return o, fault.Errorf(fault.Invalid, fault.Hint{}, "the command can't be read: %v", err)
	}
	p.conn.SetReadLimit(window)
	return o, p.conn.SetReadDeadline(time.Time{})
}

// listen takes what the client says until it has gone, which ends the command.
func (p *peer) listen(resized chan sandbox.TerminalSize) {
	defer close(p.gone)
	defer p.cancel()
	err := p.hear(resized)
	if p.input != nil {
		p.input.close(err)
	}
}

func (p *peer) hear(resized chan sandbox.TerminalSize) error {
	for {
		kind, message, err := p.conn.ReadMessage()
		if err != nil {
			return err
		}
		if kind == websocket.BinaryMessage {
			if p.input == nil || !p.input.put(message) {
				return errors.New("more input came than there was asked for")
			}
			continue
		}
		var s said
		if err := json.Unmarshal(message, &s); err != nil {
			return fmt.Errorf("what was said can't be read: %w", err)
		}
		switch {
		case s.Cancel:
			p.cancel()
		case s.End && p.input != nil:
			p.input.close(io.EOF)
		case s.Size != nil:
			select { // the latest counts
			case <-resized:
			default:
			}
			resized <- *s.Size
		}
	}
}

// tell fails on a connection that is gone, which listen notices.
func (p *peer) tell(t told) {
	p.writing.Lock()
	defer p.writing.Unlock()
	_ = p.conn.WriteJSON(t)
}

// output sends what is written to it.
type output struct {
	*peer
	which byte
}

func (o output) Write(b []byte) (int, error) {
	o.writing.Lock()
	defer o.writing.Unlock()
	for rest := b; len(rest) > 0; {
		n := min(len(rest), piece)
		w, err := o.conn.NextWriter(websocket.BinaryMessage)
		if err == nil {
			if _, err = w.Write([]byte{o.which}); err == nil {
				_, err = w.Write(rest[:n])
			}
			err = errors.Join(err, w.Close())
		}
		if err != nil {
			return len(b) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(b), nil
}
