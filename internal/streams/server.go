package streams

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"pixels/internal/fault"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// Server answers what comes by HTTP.
type Server struct {
	manager *manager.Manager
	caller  func(*http.Request) manager.Caller
	log     zerolog.Logger
	mux     *http.ServeMux
}

// New returns a server. caller tells whose a request is.
func New(m *manager.Manager, caller func(*http.Request) manager.Caller, log zerolog.Logger) *Server {
	s := &Server{m, caller, log, http.NewServeMux()}
	s.mux.HandleFunc("GET "+execPath, s.exec)
	s.handle("POST "+runsPath, func(ctx context.Context, c manager.Caller, r *http.Request) (any, error) {
		var o order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			return nil, fault.Errorf(fault.Invalid, fault.Hint{}, "the command can't be read: %v", err)
		}
		return s.manager.StartRun(ctx, c, o.request())
	})
	s.handle("GET "+runsPath, func(ctx context.Context, c manager.Caller, r *http.Request) (any, error) {
		return s.manager.Runs(ctx, c, r.FormValue("name"))
	})
	s.handle("GET "+outputPath, func(ctx context.Context, c manager.Caller, r *http.Request) (any, error) {
		q, err := parseQuery(r)
		if err != nil {
			return nil, err
		}
		return s.manager.RunOutput(ctx, c, r.FormValue("id"), q)
	})
	s.handle("GET "+sessionsPath, func(ctx context.Context, c manager.Caller, r *http.Request) (any, error) {
		return s.manager.Sessions(ctx, c, r.FormValue("name"), r.FormValue("user"))
	})
	s.handle("GET "+glancePath, func(ctx context.Context, c manager.Caller, r *http.Request) (any, error) {
		if !s.manager.Offers(c, policy.VerbListSandboxes) {
			return []manager.Glimpse{}, nil
		}
		return s.manager.Glance(ctx, c.Owner, r.FormValue("of"))
	})
	s.handleLedger()
	return s
}

// answer is what a request without an upgrade is answered.
type answer struct {
	Result json.RawMessage `json:"result,omitempty"`
	Woken  string          `json:"woken,omitempty"`
	Failed *failure        `json:"failed,omitempty"`
}

// ServeHTTP implements http.Handler. Nobody, whose name is empty, is answered nothing.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.caller(r).Owner == "" {
		http.Error(w, "it is not known who asks", http.StatusUnauthorized)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxOrder)
	s.mux.ServeHTTP(w, r)
}

func (s *Server) handle(pattern string, do func(ctx context.Context, c manager.Caller, r *http.Request) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var a answer
		c := s.caller(r)
		c.Woken = func(name string) { a.Woken = name }
		begun := time.Now()
		result, err := do(r.Context(), c, r)
		if err == nil {
			a.Result, err = json.Marshal(result)
		}
		a.Failed = s.said(r, c, begun, err)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // who has gone needs no answer
	})
}

// said logs a request, and has its error in words for people.
func (s *Server) said(r *http.Request, c manager.Caller, begun time.Time, err error) *failure {
	event := s.log.Info()
	var f *failure
	if err != nil {
		f = &failure{Text: view.Error(err, view.Member), Cancelled: errors.Is(err, context.Canceled)}
		errors.As(err, &f.Kind)
		event = s.log.Warn().Str("error", f.Text).AnErr("cause", fault.Cause(err))
	}
	event.Str("request", r.Method+" "+r.URL.Path).Str("call", c.Call).Str("owner", c.Owner).Dur("took", time.Since(begun)).Msg("stream")
	return f
}

// maxWait is how long a request may wait for more output.
const maxWait = 45 * time.Second

func parseQuery(r *http.Request) (q sandbox.RunQuery, err error) {
	var wait int64
	for name, to := range map[string]*int64{"stdout": &q.Stdout, "stderr": &q.Stderr, "limit": &q.Limit, "wait": &wait} {
		if *to, err = strconv.ParseInt(r.FormValue(name), 10, 64); err != nil || *to < 0 {
			return q, fault.About(fault.Invalid, name, "%q is invalid: give a whole number", r.FormValue(name))
		}
	}
	q.Limit, q.Wait = min(q.Limit, window), min(time.Duration(wait)*time.Millisecond, maxWait)
	return q, nil
}
