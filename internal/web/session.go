package web

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"pixels/internal/program"
	"pixels/internal/view"
	"pixels/policy/approver"
)

// sessionHeader carries the secret of a session. The browser keeps it in sessionStorage, which belongs to one origin: a
// cookie would go to every port of the host, and so to every program that listens on this machine.
const sessionHeader = "X-Pixels-Session"

// How long a session lasts without use, and how many there are at most.
const (
	sessionLife = 12 * time.Hour
	maxSessions = 50
)

// session is one browser that is signed in.
type session struct {
	secret string
	last   time.Time

	ceremony *ceremony     // the use of a passkey that was begun, guarded as sessions are
	trying   chan struct{} // full while a proof of this session is checked: one after another
}

// sessions are in memory: who restarts the server signs in anew.
type sessions struct {
	mu       sync.Mutex
	bySecret map[string]*session
}

func (s *sessions) begin() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bySecret == nil {
		s.bySecret = map[string]*session{}
	}
	var oldest *session
	for _, each := range s.bySecret {
		if oldest == nil || each.last.Before(oldest.last) {
			oldest = each
		}
	}
	if len(s.bySecret) >= maxSessions {
		delete(s.bySecret, oldest.secret)
	}
	made := &session{secret: rand.Text(), last: time.Now(), trying: make(chan struct{}, 1)}
	s.bySecret[made.secret] = made
	return made
}

func (s *sessions) find(r *http.Request) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.bySecret[r.Header.Get(sessionHeader)]
	if found == nil || time.Since(found.last) > sessionLife {
		return nil
	}
	found.last = time.Now()
	return found
}

// begun keeps a use of a passkey, in place of one that was begun before.
func (s *sessions) begun(mine *session, c *ceremony) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine.ceremony = c
}

// take returns the use of a passkey that was begun, once; nil when there is none, or its time is over.
func (s *sessions) take(mine *session) *ceremony {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := mine.ceremony
	mine.ceremony = nil
	if c == nil || time.Now().After(c.expires) {
		return nil
	}
	return c
}

func (s *sessions) end(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bySecret, secret)
}

// login answers a token with the secret of a new session.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get(sessionHeader) == "" { // a form that no script sent would show the secret
		http.Error(w, "this page needs its script", http.StatusBadRequest)
		return
	}
	err := s.tries.check(r, nil, func() error {
		if !s.right(r.PostFormValue("token")) {
			return fmt.Errorf("%w: that is not the token", approver.ErrProof)
		}
		return nil
	})
	switch {
	case errors.Is(err, approver.ErrProof):
		http.Error(w, "That is not the token. “"+program.Name+" web --token” shows it.", http.StatusForbidden)
		return
	case err != nil:
		http.Error(w, view.Error(err, view.Page), statusOf(err))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprint(w, s.sessions.begin().secret)
}

func (s *Server) logout(w http.ResponseWriter, _ *http.Request, mine *session) {
	s.sessions.end(mine.secret)
	w.WriteHeader(http.StatusNoContent)
}

// shell is a page as everybody gets it who opens its address: without anything to know, and with the script that asks for
// the rest.
func (s *Server) shell(w http.ResponseWriter, _ *http.Request) {
	s.render(w, http.StatusOK, "shell.html", nil)
}

var errSignIn = errors.New("sign in first")

// signedIn lets only who shows the secret of a session through. Who opens an address in the browser gets the shell.
func (s *Server) signedIn(handle func(http.ResponseWriter, *http.Request, *session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		mine := s.sessions.find(r)
		switch {
		case mine == nil && r.Method == http.MethodGet && r.Header.Get(sessionHeader) == "" && r.URL.Path != "/events":
			s.shell(w, r)
		case mine == nil:
			http.Error(w, errSignIn.Error(), http.StatusUnauthorized)
		default:
			handle(w, r, mine)
		}
	}
}
