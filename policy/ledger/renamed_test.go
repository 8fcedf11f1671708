package ledger

import (
	"testing"
	"time"
)

// What is open about a sandbox goes on under its new name; what is about another one of that name does not.
func TestARenamedSandboxIsTheSame(t *testing.T) {
	s := newStore(t)
	born, other := time.Now().Add(-time.Hour).Truncate(time.Millisecond), time.Now().Truncate(time.Millisecond)
	of := func(domain, lineage string, born time.Time) Request {
		r, _ := raise(t, s, Request{Owner: "me", Sandbox: "old", Born: born, Lineage: lineage, Subject: domain, Source: ByAgent})
		return r
	}
	mine, theirs := of("a.example", "one", born), of("b.example", "two", other)
	if err := s.Cut("me", "old", born, "a human"); err != nil {
		t.Fatal(err)
	}
	if err := s.Renamed("me", "old", "new", born); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{mine.ID: "new", theirs.ID: "old"} {
		r, err := s.Request(id)
		if err != nil || r.Sandbox != want || len(r.Asked) != 1 || r.Asked[0].Sandbox != want {
			t.Errorf("%s asks as %q, %+v, %v; want %s", id, r.Sandbox, r.Asked, err, want)
		}
	}
	if by, err := s.CutBy("me", "new", born); by != "a human" || err != nil {
		t.Errorf("that a human cut it is forgotten: %q, %v", by, err)
	}
	if by, err := s.CutBy("me", "old", born); by != "" || err != nil {
		t.Errorf("another one is cut: %q, %v", by, err)
	}
	if err := Noop().Renamed("me", "a", "b", born); err != nil {
		t.Error(err)
	}
}
