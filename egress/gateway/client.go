package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Client speaks to a gateway over its control channel. Its methods may be called at once.
type Client struct {
	conn   io.ReadWriteCloser
	events func(Event)
	lines  chan []byte // to be written

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan Reply
	err     error // why it ended
	done    chan struct{}
}

// ErrGone is the error of a request when the channel has ended. What was asked for may have been done.
var ErrGone = errors.New("the gateway is gone")

// NewClient takes over a channel. events, unless it is nil, hears of each event, one after the other.
func NewClient(conn io.ReadWriteCloser, events func(Event)) *Client {
	c := &Client{conn: conn, events: events, lines: make(chan []byte), waiting: map[uint64]chan Reply{}, done: make(chan struct{})}
	go c.read()
	go c.write()
	return c
}

// Done is closed when the channel has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the channel.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) read() {
	err := eachLine(c.conn, maxReplyLine, func(line []byte) error {
		var r Reply
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		if r.Event != nil {
			if c.events != nil {
				c.events(*r.Event)
			}
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if waiting := c.waiting[r.ID]; waiting != nil {
			waiting <- r
			delete(c.waiting, r.ID)
		}
		return nil
	})
	if err == nil {
		err = io.EOF
	}
	_ = c.conn.Close()
	c.mu.Lock()
	c.err = fmt.Errorf("%w: %w", ErrGone, err)
	c.mu.Unlock()
	close(c.done)
}

// write writes the requests, one after the other. It may hang in one for as long as the channel lasts.
func (c *Client) write() {
	for {
		select {
		case line := <-c.lines:
			if _, err := c.conn.Write(line); err != nil {
				_ = c.conn.Close() // read tells those who wait
				return
			}
		case <-c.done:
			return
		}
	}
}

// Do asks one thing and waits for the answer. The error is the gateway's, or ErrGone, or ctx's cause.
func (c *Client) Do(ctx context.Context, r Request) (Reply, error) {
	answer := make(chan Reply, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return Reply{}, c.err
	}
	c.next++
	r.ID = c.next
	c.waiting[r.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, r.ID)
		c.mu.Unlock()
	}()
	line, err := json.Marshal(r)
	if err != nil {
		return Reply{}, err
	}
	if len(line) >= maxRequestLine {
		return Reply{}, fmt.Errorf("the request has %d bytes, of %d that it may", len(line), maxRequestLine)
	}
	select {
	case c.lines <- append(line, '\n'):
	case <-c.done:
		return Reply{}, c.err
	case <-ctx.Done():
		return Reply{}, context.Cause(ctx)
	}
	select {
	case reply := <-answer:
		return reply, reply.Err()
	case <-c.done:
		return Reply{}, c.err
	case <-ctx.Done():
		return Reply{}, context.Cause(ctx)
	}
}
