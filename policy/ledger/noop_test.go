package ledger

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Without a ledger nothing is asked, and what would be noted fails nobody.
func TestWithoutALedgerNothingIsAsked(t *testing.T) {
	s := Noop()
	s.Add(Record{})
	if _, _, err := s.Raise(ask("alice", "base", "example.com")); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "no human can be asked") {
		t.Error(err)
	}
	if _, err := s.Requests("alice", 0); !errors.Is(err, ErrNone) {
		t.Errorf("its requests: %v", err)
	}
	if _, err := s.Claim("req-1", "me", nil); !errors.Is(err, ErrNone) {
		t.Errorf("a claim: %v", err)
	}
	if mine, err := s.Lease("watch", "me", time.Minute); mine || err != nil {
		t.Errorf("a lease: %t, %v", mine, err)
	}
	if by, err := s.CutBy("alice", "base", time.Now()); by != "" || err != nil {
		t.Errorf("who cut it off: %q, %v", by, err)
	}
	for what, err := range map[string]error{
		"cut": s.Cut("alice", "base", time.Now(), "me"), "uncut": s.Uncut("alice", "base", time.Now()), "prune": s.Prune(time.Hour), "tidy": s.Tidy(),
		"release": s.Release("watch", "me"), "close": s.Close(),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	next, done := s.Changes()
	defer done()
	if next() != nil || s.Path() != "" {
		t.Error("it has changes, or a place")
	}
}
