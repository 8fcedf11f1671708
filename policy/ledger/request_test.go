package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/policy"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func newStore(t testing.TB) *Store {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "pixels.db"))
	return s
}

func ask(owner, lineage, rule string) Request {
	return Request{Owner: owner, Sandbox: lineage + "-1", Lineage: lineage, Subject: rule, Source: ByConnection}
}

func raise(t testing.TB, s *Store, r Request) (Request, bool) {
	t.Helper()
	got, fresh, err := s.Raise(r)
	if err != nil {
		t.Fatal(err)
	}
	return got, fresh
}

func TestOneQuestionForALineage(t *testing.T) {
	s := newStore(t)
	begin := ask("alice", "base", "example.com")
	begin.Source, begin.Reason, begin.Wanted = ByAgent, "to fetch\x1b[2J <b>packages</b>", 3600
	first, fresh := raise(t, s, begin)
	if !fresh || first.State != RequestOpen || !strings.HasPrefix(first.ID, "req-") {
		t.Fatalf("%+v, %v", first, fresh)
	}
	clone := ask("alice", "base", "example.com")
	clone.Sandbox, clone.Source, clone.Reason, clone.Wanted = "base-2", ByAgent, "for longer", 7200
	second, fresh := raise(t, s, clone)
	want := first
	want.Count, want.Reason = 2, "to fetch[2J <b>packages</b>"
	want.Asked = []Asker{{Sandbox: "base-1", Count: 1}, {Sandbox: "base-2", Count: 1}}
	if diff := cmp.Diff(want, second, cmpopts.IgnoreFields(Request{}, "At", "Last", "Expires")); fresh || diff != "" {
		t.Errorf("fresh %t, (-want +got):\n%s", fresh, diff)
	}
	if third, _ := raise(t, s, ask("alice", "base", "example.com")); third.Source != ByAgent || third.Reason == "" || third.Count != 3 {
		t.Errorf("a connection took the agent's word away: %+v", third)
	}
	for _, other := range []Request{ask("bob", "base", "example.com"), ask("alice", "other", "example.com"), ask("alice", "base", "example.com:22")} {
		if got, fresh := raise(t, s, other); !fresh || got.ID == first.ID {
			t.Errorf("%+v is the same question", other)
		}
	}
	if list, err := s.Requests("alice", 0, RequestOpen); err != nil || len(list) != 3 || list[0].ID != first.ID {
		t.Errorf("%+v, %v", list, err)
	}
	if got, err := s.Request(first.ID); err != nil || got.Count != 3 || got.Wanted.Duration() != time.Hour {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Request("req-none"); !errors.Is(err, ErrNoRequest) {
		t.Error(err)
	}
}

func TestRequestsOfOneMomentAreListedAsTheyCame(t *testing.T) {
	s := newStore(t)
	now := time.Now()
	s.now = func() time.Time { return now }
	var want, got []string
	for i := range 8 {
		r, _ := raise(t, s, ask("alice", "base", fmt.Sprintf("%d.example.com", i)))
		want = append(want, r.ID)
	}
	list, err := s.Requests("alice", 0, RequestOpen)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		got = append(got, r.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestALoopOfRequestsIsBounded(t *testing.T) {
	s := newStore(t)
	open, refused := 0, 0
	start := time.Now()
	for i := range 10_000 {
		r := ask("alice", fmt.Sprint("box", i%7), fmt.Sprintf("host%d.example.com", i))
		r.Reason = strings.Repeat("<script>", 100)
		switch _, fresh, err := s.Raise(r); {
		case errors.Is(err, ErrTooManyRequests):
			refused++
		case err != nil:
			t.Fatal(err)
		case fresh:
			open++
		}
	}
	list, err := s.Requests("", 0, RequestOpen)
	if err != nil || open != maxRate || refused != 10_000-open || len(list) != open {
		t.Errorf("%d are open, %d refused, %d listed, %v, after %s", open, refused, len(list), err, time.Since(start))
	}
	if _, fresh := raise(t, s, ask("bob", "box1", "example.com")); !fresh {
		t.Error("one owner's loop takes another's voice")
	}
	for i := range maxOpen {
		raise(t, s, ask("carol", "box", fmt.Sprintf("host%d.example.com", i)))
	}
	if _, _, err := s.Raise(ask("carol", "box", "example.com")); !errors.Is(err, ErrTooManyRequests) {
		t.Errorf("more than a lineage may: %v", err)
	}
}

func TestOfManyWhoDecideOneDoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, _ := openStore(t, path)
	for range 20 {
		r, _ := raise(t, s, ask("alice", fmt.Sprint(rand.Int()), "example.com"))
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i := range 6 {
			mine := s
			if i%2 == 0 {
				mine, _ = openStore(t, path)
			}
			wg.Go(func() {
				var err error
				if i%3 == 0 {
					_, err = mine.Refuse(r.ID, fmt.Sprint("channel ", i), "no", nil)
				} else if _, err = mine.Claim(r.ID, fmt.Sprint("channel ", i), nil); err == nil {
					_, err = mine.Grant(r.ID, fmt.Sprint("channel ", i), policy.ThisLineage, time.Now().Add(time.Hour), "")
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case !errors.Is(err, ErrDecided) || !strings.Contains(err.Error(), "channel "):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Fatalf("%d decided", won)
		}
	}
}

func TestWhatWasRefusedIsNotAskedAgain(t *testing.T) {
	s := newStore(t)
	r, _ := raise(t, s, ask("alice", "base", "example.com"))
	if _, err := s.Refuse(r.ID, "cli", "not today", nil); err != nil {
		t.Fatal(err)
	}
	again, fresh := raise(t, s, ask("alice", "base", "example.com"))
	if fresh || again.ID != r.ID || again.State != RequestDenied || again.Answer != "not today" {
		t.Errorf("%+v, %v", again, fresh)
	}
	if _, err := s.Claim(r.ID, "web", nil); !errors.Is(err, ErrDecided) || !strings.Contains(err.Error(), "cli") {
		t.Error(err)
	}
}

// at makes a request's times older.
func (s *Store) age(t testing.TB, id string, by time.Duration) {
	t.Helper()
	if err := s.tx(func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE requests SET at = at - ?1, last = last - ?1, expires = expires - ?1, decided_at = max(0, decided_at - ?1) WHERE id = ?2", by.Milliseconds(), id)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestRequestsExpireAndHalfGrantedOnesOpenAgain(t *testing.T) {
	s := newStore(t)
	r, _ := raise(t, s, ask("alice", "base", "example.com"))
	s.age(t, r.ID, requestLife+time.Minute)
	if _, err := s.Claim(r.ID, "cli", nil); !errors.Is(err, ErrDecided) || !strings.Contains(err.Error(), "expired") {
		t.Error(err)
	}
	if next, fresh := raise(t, s, ask("alice", "base", "example.com")); !fresh || next.ID == r.ID {
		t.Errorf("what expired can't be asked again: %+v", next)
	}
	r, _ = raise(t, s, ask("alice", "other", "example.com"))
	if _, err := s.Claim(r.ID, "a process that dies", nil); err != nil {
		t.Fatal(err)
	}
	if same, fresh := raise(t, s, ask("alice", "other", "example.com")); fresh || same.State != RequestGranting {
		t.Errorf("%+v", same)
	}
	s.age(t, r.ID, stuckFor+time.Second)
	if got, err := s.Request(r.ID); err != nil || got.State != RequestOpen || got.DecidedBy != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Grant(r.ID, "late", policy.ThisLineage, time.Now(), ""); !errors.Is(err, ErrDecided) {
		t.Errorf("who was given up grants: %v", err)
	}
}

// No sequence of asking, giving up, refusing, expiring, dying and starting anew makes a grant: only a claim that comes to
// its end does.
func TestNothingGrantsByMistake(t *testing.T) {
	for seed := range uint64(8) {
		path := filepath.Join(t.TempDir(), "pixels.db")
		random := rand.New(rand.NewPCG(seed, 7))
		s, _ := openStore(t, path)
		var ids []string
		for range 60 {
			id := "req-none"
			if len(ids) > 0 {
				id = ids[random.IntN(len(ids))]
			}
			var err error
			switch random.IntN(8) {
			case 0, 1:
				var r Request
				if r, _, err = s.Raise(ask("alice", fmt.Sprint("box", random.IntN(3)), fmt.Sprintf("h%d.example.com", random.IntN(4)))); err == nil {
					ids = append(ids, r.ID)
				}
			case 2:
				_, err = s.Claim(id, "who dies", nil)
			case 3:
				err = s.Unclaim(id)
			case 4:
				_, err = s.Refuse(id, "human", "", nil)
			case 5:
				_, err = s.Withdraw(id, "gone")
			case 6:
				s.age(t, id, time.Duration(random.Int64N(int64(2*requestLife))))
			case 7:
				if err = s.Close(); err == nil {
					s, _ = openStore(t, path)
				}
			}
			if err != nil && !errors.Is(err, ErrDecided) && !errors.Is(err, ErrNoRequest) && !errors.Is(err, ErrTooManyRequests) {
				t.Fatal(err)
			}
			list, err := s.Requests("", 0, RequestGranted)
			if err != nil || len(list) > 0 {
				t.Fatalf("seed %d: granted is %+v, %v", seed, list, err)
			}
		}
	}
}
