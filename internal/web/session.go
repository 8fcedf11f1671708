package web

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// cookie names the cookie of a session. It has no prefix that needs HTTPS: on this machine the page has none.
const cookie = "pixels_session"

// How long a session lasts without use, how many there are at most, and how often a wrong token may be tried.
const (
	sessionLife  = 12 * time.Hour
	maxSessions  = 50
	wrongTries   = 10
	wrongsWithin = time.Minute
)

// session is one browser that is signed in.
type session struct {
	id   string
	CSRF string // what its forms must bring along
	last time.Time

	ceremony *ceremony // the use of a passkey that was begun, guarded as sessions are
}

// sessions are in memory: who restarts the server signs in anew.
type sessions struct {
	mu     sync.Mutex
	byID   map[string]*session
	wrongs []time.Time
}

func (s *sessions) begin() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = map[string]*session{}
	}
	var oldest *session
	for _, each := range s.byID {
		if oldest == nil || each.last.Before(oldest.last) {
			oldest = each
		}
	}
	if len(s.byID) >= maxSessions {
		delete(s.byID, oldest.id)
	}
	made := &session{id: rand.Text(), CSRF: rand.Text(), last: time.Now()}
	s.byID[made.id] = made
	return made
}

func (s *sessions) find(r *http.Request) *session {
	c, err := r.Cookie(cookie)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.byID[c.Value]
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

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, id)
}

// throttled tells whether too many wrong tokens were tried of late; wrong counts one more.
func (s *sessions) throttled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.wrongs) > 0 && time.Since(s.wrongs[0]) > wrongsWithin {
		s.wrongs = s.wrongs[1:]
	}
	return len(s.wrongs) >= wrongTries
}

func (s *sessions) wrong() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrongs = append(s.wrongs, time.Now())
}

// login is what the page for signing in shows.
type login struct {
	Title, Wrong, Next string
	Session            *session // none
}

func (s *Server) showLogin(w http.ResponseWriter, r *http.Request) {
	s.render(w, http.StatusOK, "login.html", login{Title: "Sign in", Next: r.FormValue("next")})
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	page := login{Title: "Sign in", Next: r.PostFormValue("next")}
	if s.sessions.throttled() {
		page.Wrong = "Too many wrong tokens. Wait a minute, then try again."
		s.render(w, http.StatusTooManyRequests, "login.html", page)
		return
	}
	if !s.right(r.PostFormValue("token")) {
		s.sessions.wrong()
		page.Wrong = "That is not the token. “pixels-mcp web --token” shows it."
		s.render(w, http.StatusForbidden, "login.html", page)
		return
	}
	made := s.sessions.begin()
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: made.id, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil, MaxAge: int(sessionLife.Seconds())})
	next := page.Next
	if !local(next) {
		next = "/"
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request, mine *session) {
	s.sessions.end(mine.id)
	http.SetCookie(w, &http.Cookie{Name: cookie, Path: "/", MaxAge: -1})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// signedIn lets only who is signed in through, and of what changes something only what comes from the page's own forms.
func (s *Server) signedIn(handle func(http.ResponseWriter, *http.Request, *session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		mine := s.sessions.find(r)
		switch {
		case mine == nil && r.Method == http.MethodGet && r.Header.Get("X-Requested-With") == "":
			http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		case mine == nil:
			http.Error(w, "sign in first", http.StatusUnauthorized)
		case r.Method != http.MethodGet && subtle.ConstantTimeCompare([]byte(r.PostFormValue("csrf")), []byte(mine.CSRF)) != 1:
			http.Error(w, "this form is not of the page, or of an earlier session: load the page again", http.StatusForbidden)
		default:
			handle(w, r, mine)
		}
	}
}
