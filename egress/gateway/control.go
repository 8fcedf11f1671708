package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"pixels/egress"
)

// Request is one line to the control channel. Each is answered by one line with the same ID.
type Request struct {
	ID      uint64         `json:"id"`
	Op      Op             `json:"op"`
	Sandbox string         `json:"sandbox,omitempty"`
	Policy  *egress.Policy `json:"policy,omitempty"` // of Take and Set
	Mark    string         `json:"mark,omitempty"`   // of Take and Set: names the policy; Wire.Mark shows it
	Index   int            `json:"index,omitempty"`  // of Delete and Once: the wire's
	Grant   *egress.Grant  `json:"grant,omitempty"`  // of Once
	Domain  string         `json:"domain,omitempty"` // of Keep, as Port and For are
	Port    uint16         `json:"port,omitempty"`
	For     time.Duration  `json:"for,omitempty"`     // in nanoseconds
	Answers bool           `json:"answers,omitempty"` // of Watch: who watches says of connections that are held how long to hold them
	Within  time.Duration  `json:"within,omitempty"`  // of Denials: those of the last time, in nanoseconds; 0 means all
}

// Op is what a request asks for.
type Op string

// What can be asked for. Watch has events come as lines of their own from then on.
const (
	Take    Op = "take"
	Set     Op = "set"
	Drop    Op = "drop"
	Delete  Op = "delete"
	Wires   Op = "wires"
	Denials Op = "denials"
	Status  Op = "status" // its wire and its denials
	Watch   Op = "watch"
	Keep    Op = "hold" // connections that wait: how long
	Once    Op = "once" // a grant for one connection
)

// Reply is one line from the control channel: the answer to a request, or an event.
type Reply struct {
	ID      uint64         `json:"id,omitempty"`
	Error   string         `json:"error,omitempty"`
	Code    string         `json:"code,omitempty"` // of errors that a caller tells apart
	Wire    *Wire          `json:"wire,omitempty"`
	Wires   []Wire         `json:"wires,omitempty"`
	Free    int            `json:"free"`            // of Take: how many more could be taken
	Limit   int            `json:"limit,omitempty"` // of Wires: how many there can be
	Denials []Event        `json:"denials,omitempty"`
	Grants  []egress.Grant `json:"grants,omitempty"` // of Status: those for one connection
	Open    int            `json:"open,omitempty"`   // of Status: connections that are open
	Cut     int            `json:"cut,omitempty"`    // connections that a change ended
	Seq     uint64         `json:"seq,omitempty"`    // number of the latest event
	Event   *Event         `json:"event,omitempty"`
}

// codes are the errors that cross the channel as what they are.
var codes = map[string]error{"no_wire": ErrNoWire, "no_sandbox": ErrNoSandbox}

// Err returns the error that a reply carries.
func (r Reply) Err() error {
	if r.Error == "" {
		return nil
	}
	if known := codes[r.Code]; known != nil {
		return fmt.Errorf("gateway: %s (%w)", r.Error, known)
	}
	return fmt.Errorf("gateway: %s", r.Error)
}

// Relay joins stdin and stdout to a gateway's control socket, until either ends. It is what a server runs in the gateway.
func Relay(socket string, in io.Reader, out io.Writer) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, in)
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(out, conn)
	return err
}

func (g *Gateway) serveControl(ctx context.Context) error {
	for range listeners {
		select {
		case <-g.listening:
		case <-ctx.Done():
			return nil
		}
	}
	_ = os.Remove(g.config.Socket) // left by one that was killed
	listener, err := net.Listen("unix", g.config.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	if err := os.Chmod(g.config.Socket, 0o600); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	var conversations sync.WaitGroup
	defer conversations.Wait()
	defer end()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		conversations.Go(func() { g.converse(ctx, conn) })
	}
}

// converse answers one client of the control channel.
func (g *Gateway) converse(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var mu sync.Mutex
	encoder := json.NewEncoder(conn)
	send := func(r Reply) error {
		mu.Lock()
		defer mu.Unlock()
		return encoder.Encode(r)
	}
	var watcher *watcher
	var telling sync.WaitGroup
	answers := false
	defer func() {
		if watcher != nil {
			g.mu.Lock()
			delete(g.watchers, watcher)
			if answers {
				g.answering--
			}
			g.mu.Unlock()
			close(watcher.events)
			_ = conn.Close() // for one who doesn't listen
			telling.Wait()
		}
	}()
	_ = eachLine(conn, maxRequestLine, func(line []byte) error {
		var request Request
		if err := json.Unmarshal(line, &request); err != nil {
			_ = send(Reply{Error: "not a request: " + err.Error()})
			return err
		}
		if request.Op == Watch && watcher == nil {
			watcher = newWatcher()
			g.mu.Lock()
			g.watchers[watcher] = struct{}{}
			if answers = request.Answers; answers {
				g.answering++
			}
			g.mu.Unlock()
			telling.Go(func() {
				for e := range watcher.events {
					g.mu.Lock()
					watcher.took()
					g.mu.Unlock()
					if send(Reply{Event: &e}) != nil {
						_ = conn.Close() // and the loop below ends
					}
				}
			})
		}
		return send(g.do(request))
	})
}

func (g *Gateway) do(r Request) (reply Reply) {
	var err error
	switch {
	case (r.Op == Take || r.Op == Set) && (r.Policy == nil || r.Sandbox == ""):
		err = errors.New("sandbox and policy are needed")
	case r.Op == Take:
		var w Wire
		if w, err = g.Take(r.Sandbox, *r.Policy, r.Mark); err == nil {
			reply.Wire, reply.Free = &w, g.free()
		}
	case r.Op == Set:
		reply.Cut, err = g.Set(r.Sandbox, *r.Policy, r.Mark)
	case r.Op == Once && (r.Grant == nil || r.Grant.Once == ""):
		err = errors.New("a grant with its name is needed")
	case r.Op == Once:
		err = g.GrantOnce(r.Sandbox, r.Index, *r.Grant)
	case r.Op == Drop:
		err = g.Drop(r.Sandbox)
	case r.Op == Delete:
		err = g.Delete(r.Index)
	case r.Op == Wires:
		reply.Wires, reply.Limit = g.list(), g.config.Wires
	case r.Op == Denials:
		reply.Denials, err = g.denials(r.Sandbox, r.Within)
	case r.Op == Status:
		if reply.Wire, err = g.wireOf(r.Sandbox); err == nil {
			reply.Denials, err = g.denials(r.Sandbox, r.Within)
			reply.Grants = g.once(r.Sandbox)
			reply.Open = g.opened(r.Sandbox)
		}
	case r.Op == Keep:
		err = g.Hold(r.Sandbox, r.Domain, r.Port, r.For)
	case r.Op == Watch:
	default:
		err = fmt.Errorf("the request %q is unknown", r.Op)
	}
	g.mu.Lock()
	reply.ID, reply.Seq = r.ID, g.seq
	g.mu.Unlock()
	if err != nil {
		reply.Error = err.Error()
		for code, known := range codes {
			if errors.Is(err, known) {
				reply.Code = code
			}
		}
	}
	return reply
}

// opened counts the connections of a sandbox that are open. Those that can't be counted are none.
func (g *Gateway) opened(sandbox string) int {
	g.mu.Lock()
	w, err := g.find(sandbox)
	if err != nil {
		g.mu.Unlock()
		return 0
	}
	n, open := len(w.flows), w.policy.Mode == egress.Unrestricted
	address := w.address
	g.mu.Unlock()
	if open {
		more, _ := opened(address)
		n += more
	}
	return n
}

func (g *Gateway) free() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.wires {
		if w.state == Free {
			n++
		}
	}
	return n
}

func (g *Gateway) list() []Wire {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Wire, 0, len(g.wires))
	for _, w := range g.wires {
		all = append(all, w.shown())
	}
	slices.SortFunc(all, func(a, b Wire) int { return a.Number - b.Number })
	return all
}

func (g *Gateway) wireOf(sandbox string) (*Wire, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w, err := g.find(sandbox)
	if err != nil {
		return nil, err
	}
	shown := w.shown()
	return &shown, nil
}

func (g *Gateway) denials(sandbox string, within time.Duration) (out []Event, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w, err := g.find(sandbox)
	if err != nil {
		return nil, err
	}
	for _, e := range w.denials {
		if within == 0 || time.Since(e.Time) <= within {
			out = append(out, e)
		}
	}
	return out, nil
}
