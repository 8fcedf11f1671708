package server

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"
	"time"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

// maxSessions is how many sessions the holder of one token has at most.
const maxSessions = 2000

// sessions are those of clients before protocol version 2026-07-28. A session is that of the token by which it began.
type sessions struct {
	ctx context.Context // of all

	mu   sync.Mutex
	byID map[string]*session
	of   map[key]int
}

// session ends by a DELETE, when nobody used it for long, or with its stream where it has one.
type session struct {
	holder key
	over   context.Context
	end    context.CancelFunc
	uses   int       // requests under way
	last   time.Time // end of the latest
}

var errNoSession = errors.New("there is no such session")

func newSessions(ctx context.Context) *sessions {
	return &sessions{ctx: ctx, byID: map[string]*session{}, of: map[key]int{}}
}

func (s *sessions) begin(holder key) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := &session{holder: holder, last: time.Now()}
	one.over, one.end = context.WithCancel(s.ctx)
	id = rand.Text()
	s.byID[id] = one
	s.of[holder]++
	return id
}

func (s *sessions) full(holder key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[holder] >= maxSessions
}

func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID)
}

// find returns a holder's session; nil where it is another's, or has ended.
func (s *sessions) find(holder key, id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.byID[id]; one != nil && one.holder == holder {
		return one
	}
	return nil
}

// use begins the use of a holder's session by a request; nil where it is another's, or has ended. done must be called at its end.
func (s *sessions) use(holder key, id string) (over context.Context, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byID[id]
	if one == nil || one.holder != holder {
		return nil, nil
	}
	one.uses++
	return one.over, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		one.uses--
		one.last = time.Now()
	}
}

// idle ends sessions that nobody has used for a time, and returns their IDs.
func (s *sessions) idle(d time.Duration) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, one := range s.byID {
		if one.uses == 0 && time.Since(one.last) >= d {
			ids = append(ids, id)
			s.endLocked(id)
		}
	}
	return ids
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(id)
}

func (s *sessions) endLocked(id string) {
	one := s.byID[id]
	if one == nil {
		return
	}
	one.end()
	delete(s.byID, id)
	if s.of[one.holder]--; s.of[one.holder] == 0 {
		delete(s.of, one.holder)
	}
}

// ResolveSessionIdManager implements the SDK's SessionIdManagerResolver. Without a request it is asked to end sessions.
func (s *sessions) ResolveSessionIdManager(r *http.Request) mcpserver.SessionIdManager {
	if r == nil {
		return holdersSessions{s, key{}}
	}
	return holdersSessions{s, identityOf(r.Context()).key}
}

// holdersSessions are those of one token, as the SDK asks for them.
type holdersSessions struct {
	all    *sessions
	holder key
}

func (h holdersSessions) Generate() string { return h.all.begin(h.holder) }

func (h holdersSessions) Validate(id string) (ended bool, err error) {
	if h.all.find(h.holder, ownerOf(id)) == nil {
		return false, errNoSession
	}
	return false, nil
}

func (h holdersSessions) Terminate(string) (refused bool, err error) {
	return false, nil // who has the SDK forget a session has ended it before: see HTTP.endSession
}
