package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// lines serves one client that speaks in lines, on stdin and stdout or a socket. The SDK's own way has one session for all of a process:
// of several clients each would have the progress, and the questions, of the others. And progress may come after its call's answer there.
type lines struct {
	*lineSession
	server *Server
	all    chan struct{}
	asking sync.WaitGroup

	ending sync.RWMutex // read while a request is begun
	ended  bool
}

// begin does a request beside others, unless it is too late.
func (l *lines) begin(do func()) {
	l.ending.RLock()
	defer l.ending.RUnlock()
	if !l.ended {
		l.asking.Go(do)
	}
}

// end waits for the requests under way, whose context has ended.
func (l *lines) end() {
	l.ending.Lock()
	l.ended = true
	l.ending.Unlock()
	l.asking.Wait()
}

// serveLines answers until in ends or ctx does, and returns when every call has come to its end.
func (s *Server) serveLines(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &lines{lineSession: newLineSession(out), server: s, all: make(chan struct{}, atOnce+maxWaiting)}
	if err := s.mcp.RegisterSession(ctx, l.lineSession); err != nil {
		return err
	}
	defer s.mcp.UnregisterSession(context.WithoutCancel(ctx), l.SessionID())
	ctx = s.mcp.WithContext(context.WithValue(ctx, tellerKey{}, teller(l.say)), l.lineSession)
	l.begin(func() { l.passOn(ctx) })
	l.begin(func() { s.followTools(ctx) })
	defer l.end()
	defer cancel()
	read := make(chan error, 1)
	go func() { read <- l.read(ctx, in) }() // it may be left behind: there is no way to end a read
	select {
	case <-ctx.Done():
		return nil
	case err := <-read:
		return err
	}
}

// read takes messages until there are no more.
func (l *lines) read(ctx context.Context, in io.Reader) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 0, 64<<10), maxMessage)
	for scanner.Scan() && ctx.Err() == nil {
		if raw := scanner.Bytes(); len(raw) > 0 {
			l.take(ctx, append(json.RawMessage(nil), raw...))
		}
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		l.refuse(nil, mcp.INVALID_REQUEST, fmt.Sprintf("a message is longer than %d MiB", maxMessage>>20))
	}
	return scanner.Err()
}

// take answers one message. What cancels a request, or answers a question of ours, is taken at once; requests come in their turn.
func (l *lines) take(ctx context.Context, raw json.RawMessage) {
	var m struct {
		ID     any             `json:"id"`
		Method string          `json:"method"`
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	switch err := json.Unmarshal(raw, &m); {
	case err != nil && !json.Valid(raw):
		l.refuse(nil, mcp.PARSE_ERROR, "that is no JSON")
		return
	case err == nil && m.Method == "" && (m.Result != nil || m.Error != nil):
		l.answered(m.ID, m.Result, m.Error)
		return
	case m.ID == nil:
		l.handle(ctx, m.ID, raw)
		return
	}
	select {
	case l.all <- struct{}{}:
	default:
		l.refuse(m.ID, mcp.INTERNAL_ERROR, errTooMany.Error())
		return
	}
	l.begin(func() {
		defer func() { <-l.all }()
		l.handle(ctx, m.ID, raw)
	})
}

func (l *lines) handle(ctx context.Context, id any, raw json.RawMessage) {
	defer func() { // the panic of one request ends no other
		if p := recover(); p != nil {
			l.server.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("request")
			l.refuse(id, mcp.INTERNAL_ERROR, "this failed by a fault of Pixels itself; the server's log has more")
		}
	}()
	if answer, mine := l.server.task(ctx, raw, nil); mine {
		_ = l.say(answer)
		return
	}
	if answer := l.server.mcp.HandleMessage(ctx, raw); answer != nil {
		_ = l.say(answer) // a client that has gone needs no answer
	}
}

func (l *lines) refuse(id any, code int, why string) {
	_ = l.say(mcp.NewJSONRPCError(mcp.NewRequestId(id), code, why, nil))
}

// passOn writes what the SDK tells all sessions.
func (l *lines) passOn(ctx context.Context) {
	for {
		select {
		case n := <-l.notified:
			_ = l.say(n)
		case <-ctx.Done():
			return
		}
	}
}

// teller tells a client something in order: what was told before an answer comes before it.
type teller func(message any) error

type tellerKey struct{}

// lineSession is that client, as the SDK sees it.
type lineSession struct {
	known
	notified chan mcp.JSONRPCNotification

	writing sync.Mutex
	out     io.Writer

	pending sync.Mutex
	last    int64
	asked   map[string]chan elicitAnswer // by ID
}

type elicitAnswer struct {
	result *mcp.ElicitationResult
	err    error
}

func newLineSession(out io.Writer) *lineSession {
	return &lineSession{out: out, notified: make(chan mcp.JSONRPCNotification, 100), asked: map[string]chan elicitAnswer{}}
}

// say writes a message.
func (s *lineSession) say(message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	_, err = s.out.Write(append(b, '\n'))
	return err
}

// RequestElicitation implements the SDK's SessionWithElicitation.
func (s *lineSession) RequestElicitation(ctx context.Context, request mcp.ElicitationRequest) (*mcp.ElicitationResult, error) {
	answer := make(chan elicitAnswer, 1)
	s.pending.Lock()
	s.last++
	id := s.last
	name := fmt.Sprint(id)
	s.asked[name] = answer
	s.pending.Unlock()
	defer func() {
		s.pending.Lock()
		defer s.pending.Unlock()
		delete(s.asked, name)
	}()
	if err := s.say(mcp.JSONRPCRequest{JSONRPC: mcp.JSONRPC_VERSION, ID: mcp.NewRequestId(id), Request: mcp.Request{Method: string(mcp.MethodElicitationCreate)}, Params: request.Params}); err != nil {
		return nil, err
	}
	select {
	case a := <-answer:
		return a.result, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answered takes a client's answer to a request of ours; one that nobody waits for is dropped.
func (s *lineSession) answered(id any, result, failed json.RawMessage) {
	s.pending.Lock()
	waiting := s.asked[fmt.Sprint(id)]
	s.pending.Unlock()
	if waiting == nil {
		return
	}
	a := elicitAnswer{result: &mcp.ElicitationResult{}}
	if failed != nil {
		a = elicitAnswer{err: fmt.Errorf("the client answers %s", failed)}
	} else if err := json.Unmarshal(result, a.result); err != nil {
		a = elicitAnswer{err: err}
	}
	select {
	case waiting <- a:
	default: // it was answered already
	}
}

var _ mcpserver.SessionWithElicitation = (*lineSession)(nil)
