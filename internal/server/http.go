package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
	"github.com/rs/zerolog"

	"pixels/internal/oauth"
	"pixels/tools"
)

// The paths of the HTTP interface. Those of streams are below streamsPath.
const (
	mcpPath     = "/mcp"
	ssePath     = "/sse"
	messagePath = "/message"
	healthPath  = "/healthz"
	metricsPath = "/metrics"
	streamsPath = "/v1/"
)

// Spoken are the paths at which clients begin to speak MCP.
var Spoken = []string{mcpPath, ssePath}

// Times of the HTTP interface.
const (
	heartbeat    = 25 * time.Second // on streams on which nothing is sent
	sessionIdle  = 30 * time.Minute // without use, then a session ends
	headerTime   = 10 * time.Second
	connIdleTime = 2 * time.Minute
	closeTime    = 20 * time.Second // for calls that undo what they began
)

// HTTPConfig is what an HTTP server needs.
type HTTPConfig struct {
	Version string
	Base    tools.Session
	Tokens  Tokens
	Names   []string      // of the server beside its addresses, in lower case
	Streams http.Handler  // of the command line; may be nil
	Metrics string        // secret by which they are read; empty serves none
	OAuth   *oauth.Server // for clients that ask a human for a token; may be nil
	Page    http.Handler  // for humans at the same address; it has a guard of its own; may be nil
	Log     zerolog.Logger

	// Other than usual in tests.
	sessionIdle, heartbeat time.Duration
	sdk                    []mcpserver.ServerOption
	asking                 []string // tools that ask a client of a session something while they are called: none of ours do by HTTP
}

// HTTP serves clients that call by HTTP with a token: MCP as streamable HTTP, with sessions and without, MCP as HTTP with SSE for old
// clients, and the streams of the command line.
type HTTP struct {
	config   HTTPConfig
	mcp      *Server
	holders  *holders
	sessions *sessions
	events   *events
	stream   *mcpserver.StreamableHTTPServer
	sse      *mcpserver.SSEServer
	mux      *http.ServeMux
	routes   []route
	meters   *meters
	working  sync.RWMutex // read by each request
	end      context.CancelFunc
}

// route is one path, and who may use it.
type route struct {
	pattern string
	who     access
}

// NewHTTP returns a server, which must be closed.
func NewHTTP(c HTTPConfig) *HTTP {
	ctx, end := context.WithCancel(context.Background())
	h := &HTTP{config: c, holders: newHolders(c.Tokens), sessions: newSessions(ctx), events: newEvents(), mux: http.NewServeMux(), end: end}
	if h.config.sessionIdle == 0 {
		h.config.sessionIdle = sessionIdle
	}
	if h.config.heartbeat == 0 {
		h.config.heartbeat = heartbeat
	}
	h.meters = newMeters(h)
	h.mcp = New(c.Version, c.Base, c.Log, c.sdk...)
	h.mcp.called = h.meters.called
	h.stream = mcpserver.NewStreamableHTTPServer(h.mcp.mcp,
		mcpserver.WithSessionIdManagerResolver(h.sessions), mcpserver.WithEventStore(h.events), mcpserver.WithHeartbeatInterval(h.config.heartbeat),
		mcpserver.WithHTTPContextFunc(outlasting), mcpserver.WithDisableLocalhostProtection(true), // the guard has its own
		mcpserver.WithStreamableHTTPLogger(slog.New(slog.NewTextHandler(debugLog{c.Log}, nil))),
	)
	h.sse = mcpserver.NewSSEServer(h.mcp.mcp,
		mcpserver.WithSSEEndpoint(ssePath), mcpserver.WithMessageEndpoint(messagePath), mcpserver.WithUseFullURLForMessageEndpoint(false),
		mcpserver.WithKeepAliveInterval(h.config.heartbeat), mcpserver.WithSSEDisableLocalhostProtection(true),
		mcpserver.WithSessionIDGenerator(func(_ context.Context, r *http.Request) (string, error) { return r.Header.Get(sseSession), nil }),
	)
	h.handle(mcpPath, holder, http.HandlerFunc(h.serveMCP))
	h.handle(ssePath, holder, http.HandlerFunc(h.serveSSE))
	h.handle(messagePath, holder, http.HandlerFunc(h.serveMessage))
	h.handle(healthPath, anybody, http.HandlerFunc(h.health))
	if c.Streams != nil {
		h.handle(streamsPath, holder, c.Streams)
	}
	if c.Metrics != "" {
		h.handle(metricsPath, scraper, http.HandlerFunc(h.serveMetrics))
	}
	if c.OAuth != nil {
		for _, r := range c.OAuth.Routes() {
			who := anybody
			if r.Browser {
				who = browser
			}
			h.handle(r.Path, who, r.Handler)
		}
	}
	if c.Page != nil {
		h.mux.Handle("/", c.Page)
	}
	go h.holders.watch(ctx)
	go h.sweepSessions(ctx)
	go h.mcp.followTools(ctx)
	return h
}

// debugLog takes what the SDK logs, which is mostly of clients that went away.
type debugLog struct{ zerolog.Logger }

func (l debugLog) Write(b []byte) (int, error) {
	l.Debug().Msg(string(b))
	return len(b), nil
}

func (h *HTTP) handle(pattern string, who access, next http.Handler) {
	h.routes = append(h.routes, route{pattern, who})
	h.mux.Handle(pattern, h.guard(who, next))
}

// ServeHTTP implements http.Handler.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.working.TryRLock() {
		http.Error(w, "the server is ending", http.StatusServiceUnavailable)
		return
	}
	defer h.working.RUnlock()
	h.mux.ServeHTTP(w, r)
}

// Serve answers on a listener until ctx ends, and returns when every call has come to its end.
func (h *HTTP) Serve(ctx context.Context, listener net.Listener) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, IdleTimeout: connIdleTime, MaxHeaderBytes: 64 << 10, ErrorLog: stdlog.New(debugLog{h.config.Log}, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	err := s.Serve(listener)
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
}

// Close ends all sessions and waits for the calls that are under way, which undo what they began.
func (h *HTTP) Close() {
	h.end()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_ = h.stream.Shutdown(ctx)
	h.sse.CloseSessions()
	ended := make(chan struct{})
	go func() {
		h.working.Lock() // never given back: nothing is served any more
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// health says that the server runs, and nothing more.
func (h *HTTP) health(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET it", http.StatusMethodNotAllowed)
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// serveMCP is streamable HTTP. A session, where the request has one, is that of who began it.
func (h *HTTP) serveMCP(w http.ResponseWriter, r *http.Request) {
	who := identityOf(r.Context())
	modern := mcp.IsModernProtocol(r.Header.Get(mcp.HeaderProtocolVersion))
	var said message
	if r.Method == http.MethodPost {
		said = newMessage(whole(r))
		modern = modern || mcp.IsModernProtocol(said.Params.Meta.ProtocolVersion())
	}
	switch id := r.Header.Get(mcpserver.HeaderKeySessionID); {
	case r.Method != http.MethodPost && r.Method != http.MethodGet && r.Method != http.MethodDelete:
		w.Header().Set("Allow", "GET, POST, DELETE")
		http.Error(w, "MCP is spoken here by POST, GET and DELETE", http.StatusMethodNotAllowed)
		return
	case modern:
	case id != "":
		over, done := h.sessions.use(who.key, id)
		if over == nil {
			http.Error(w, "there is no such session: begin a new one", http.StatusNotFound)
			return
		}
		defer done()
		h.serveSession(w, r.WithContext(context.WithValue(r.Context(), lastsKey{}, over)), id)
		return
	case r.Method != http.MethodPost:
		http.Error(w, "the header Mcp-Session-Id is missing", http.StatusBadRequest)
		return
	case said.Method != "" && said.Method != string(mcp.MethodInitialize):
		http.Error(w, "the header Mcp-Session-Id is missing: initialize begins a session", http.StatusBadRequest)
		return
	case h.sessions.full(who.key):
		http.Error(w, "this token has too many sessions open: end some", http.StatusTooManyRequests)
		return
	}
	if modern && h.serveTask(w, r, said.raw) {
		return
	}
	if modern && said.Method == string(mcp.MethodNotificationCancelled) {
		// Without sessions the SDK tells requests apart by their IDs alone: one client would cancel another's. A client cancels by closing
		// the connection.
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if !modern || !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		h.stream.ServeHTTP(w, r)
		return
	}
	answer := &ordered{ResponseWriter: w}
	defer answer.end()
	h.stream.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), tellerKey{}, teller(answer.tell))))
}

// serveTask serves a request that belongs to the tasks extension, and tells whether it does.
func (h *HTTP) serveTask(w http.ResponseWriter, r *http.Request, raw json.RawMessage) bool {
	answer, mine := h.mcp.task(r.Context(), raw, r.Header)
	if !mine {
		return false
	}
	status := http.StatusOK
	if refused, ok := answer.(mcp.JSONRPCError); ok && (refused.Error.Code == mcp.HEADER_MISMATCH || refused.Error.Code == mcp.MISSING_REQUIRED_CLIENT_CAPABILITY) {
		status = http.StatusBadRequest
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // a client that has gone needs no answer
	return true
}

// serveSession serves a request in a client's session.
func (h *HTTP) serveSession(w http.ResponseWriter, r *http.Request, id string) {
	switch r.Method {
	case http.MethodDelete:
		h.endSession(id)
		return
	case http.MethodPost:
		call := percall(id, whole(r), h.config.asking)
		defer h.events.working(call)()
		r.Header.Set(mcpserver.HeaderKeySessionID, call)
	default:
		if last := r.Header.Get("Last-Event-ID"); last != "" {
			r.Header.Set(mcpserver.HeaderKeySessionID, h.events.callOf(id, last))
		}
	}
	h.stream.ServeHTTP(w, r)
	if old, ok := h.events.oldest(id); ok {
		h.forget(old)
	}
}

// lastsKey is of what a call lasts as long as, beside its request.
type lastsKey struct{}

// outlasting lets a call of a session go on when its connection breaks: a client that cancels it says so, and one that comes back has its
// answer (see events).
func outlasting(ctx context.Context, _ *http.Request) context.Context {
	if _, in := ctx.Value(lastsKey{}).(context.Context); in {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// sseSession hands the ID of a new session to the SDK. What a client says by that name is overwritten.
const sseSession = "X-Pixels-Sse-Session"

// serveSSE is the stream of a session of the old transport, which lasts as long as that.
func (h *HTTP) serveSSE(w http.ResponseWriter, r *http.Request) {
	who := identityOf(r.Context())
	if h.sessions.full(who.key) {
		http.Error(w, "this token has too many sessions open: end some", http.StatusTooManyRequests)
		return
	}
	id := h.sessions.begin(who.key)
	defer h.sessions.end(id)
	over, done := h.sessions.use(who.key, id)
	defer done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(over, cancel)()
	r = r.WithContext(ctx)
	r.Header.Set(sseSession, id)
	h.sse.SSEHandler().ServeHTTP(w, r)
}

// serveMessage takes the messages of such a session.
func (h *HTTP) serveMessage(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("sessionId")
	one := h.sessions.find(identityOf(r.Context()).key, id)
	if one == nil {
		http.Error(w, "there is no such session: begin a new one", http.StatusNotFound)
		return
	}
	// What the SDK is told for the session may come after the answer that it belongs before.
	tell := teller(func(message any) error { return h.sse.SendEventToSession(id, message) })
	ctx := context.WithValue(context.WithValue(r.Context(), lastsKey{}, one.over), tellerKey{}, tell)
	h.sse.MessageHandler().ServeHTTP(w, r.WithContext(ctx))
}
