package ledger

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// said takes down what a store says.
type said struct {
	mu   sync.Mutex
	errs []error
}

func (s *said) say(err error) { s.mu.Lock(); s.errs = append(s.errs, err); s.mu.Unlock() }

func (s *said) all() string { s.mu.Lock(); defer s.mu.Unlock(); return fmt.Sprint(s.errs) }

func openStore(t testing.TB, path string) (*Store, *said) {
	t.Helper()
	heard := &said{}
	s, err := Open(path, heard.say)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, heard
}

// records waits until there are n that match.
func records(t testing.TB, s *Store, q Query, n int) []Record {
	t.Helper()
	var got []Record
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var err error
		if got, err = s.Records(q); err != nil {
			t.Fatal(err)
		}
		if len(got) >= n {
			break
		}
	}
	if len(got) != n {
		t.Fatalf("there are %d records %+v, want %d", len(got), got, n)
	}
	return got
}

func TestRecordsAreKeptAndFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "pixels.db")
	s, heard := openStore(t, path)
	code := 3
	s.Add(Record{Kind: Decided, Owner: "alice", Sandbox: "box", Channel: "mcp", Call: "c1", Tool: "exec", Verdict: "allow"})
	s.Add(Record{Kind: Executed, Owner: "alice", Sandbox: "box", Call: "c1", Tool: "exec", Target: "make\x1b[31m\ntest", Code: &code, Duration: 1500 * time.Millisecond})
	s.Add(Record{Kind: Connected, Owner: "bob", Sandbox: "box", Verdict: "denied", Target: "example.com:443", Count: 7, Process: strings.Repeat("ü", 4000)})
	all := records(t, s, Query{}, 3)
	want := Record{ID: 2, At: time.Now(), Kind: Executed, Owner: "alice", Sandbox: "box", Call: "c1", Tool: "exec", Target: "make[31m test", Count: 1, Code: &code, Duration: 1500 * time.Millisecond}
	if diff := cmp.Diff(want, all[1], cmpopts.EquateApproxTime(time.Minute)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r := all[2]; r.Count != 7 || len(r.Process) > longest || r.Code != nil {
		t.Errorf("%+v", r)
	}
	records(t, s, Query{Call: "c1"}, 2)
	records(t, s, Query{Owner: "bob"}, 1)
	records(t, s, Query{Kind: Executed}, 1)
	records(t, s, Query{Verdict: "denied"}, 1)
	records(t, s, Query{Text: "EXAMPLE.com"}, 1)
	records(t, s, Query{After: all[1].ID}, 1)
	records(t, s, Query{Since: time.Now().Add(time.Hour)}, 0)
	if got := records(t, s, Query{Limit: 2}, 2); got[0].Kind != Executed {
		t.Errorf("the latest two are %+v", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, _ := openStore(t, path)
	records(t, again, Query{}, 3)
	if err := again.Prune(-time.Minute); err != nil {
		t.Fatal(err)
	}
	records(t, again, Query{}, 0)
	if heard.all() != "[]" {
		t.Error(heard.all())
	}
}

func TestClosingWritesWhatWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, _ := openStore(t, path)
	for range 3000 {
		s.Add(Record{Kind: Decided})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, _ := openStore(t, path)
	records(t, again, Query{}, 3000)
}

func TestManyProcessesShareTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	var wg sync.WaitGroup
	for range 4 {
		s, heard := openStore(t, path)
		wg.Go(func() {
			for range 500 {
				s.Add(Record{Kind: Decided})
			}
			if err := s.Close(); err != nil || heard.all() != "[]" {
				t.Errorf("%v, %s", err, heard.all())
			}
		})
	}
	wg.Wait()
	s, _ := openStore(t, path)
	records(t, s, Query{}, 2000)
}

func TestABrokenFileIsKeptAside(t *testing.T) {
	for name, content := range map[string][]byte{"no database": []byte("this is no database, and was never one"), "a torn one": append([]byte("SQLite format 3\x00"), bytes.Repeat([]byte{7}, 9000)...)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pixels.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, heard := openStore(t, path)
			s.Add(Record{Kind: Decided})
			records(t, s, Query{}, 1)
			aside, err := filepath.Glob(path + ".broken-*")
			if err != nil || len(aside) != 1 || !strings.Contains(heard.all(), aside[0]) {
				t.Fatalf("%v, %v, said %s", aside, err, heard.all())
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, content) {
				t.Errorf("what was there is not kept: %v", err)
			}
		})
	}
}

func TestAFileThatBreaksWhileItIsOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, heard := openStore(t, path)
	s.Add(Record{Kind: Decided})
	records(t, s, Query{}, 1)
	s.db.SetMaxIdleConns(0) // what a connection has in memory hides what the disk has
	if err := os.WriteFile(path, bytes.Repeat([]byte("broken "), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(heard.all(), "kept as"); time.Sleep(10 * time.Millisecond) {
		s.Add(Record{Kind: Decided})
		if time.Now().After(end) {
			t.Fatalf("nothing was said of it: %s", heard.all())
		}
	}
	s.Add(Record{Kind: Decided, Tool: "after"})
	records(t, s, Query{Tool: "after"}, 1)
}

func TestWhatCantBeKeptIsSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, heard := openStore(t, path)
	if err := s.with(func(db *sql.DB) error { _, err := db.Exec("PRAGMA max_page_count = 20"); return err }); err != nil {
		t.Fatal(err)
	}
	s.db.SetMaxOpenConns(1) // the bound is a connection's own
	for i := range 2000 {
		s.Add(Record{Kind: Decided, Detail: strings.Repeat(fmt.Sprint(i), 300)})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(heard.all(), "gaps") || !strings.Contains(heard.all(), "full") || strings.Count(heard.all(), "gaps") > 10 {
		t.Errorf("said %s", heard.all())
	}
}

func TestALockedFileHoldsNoCallUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, _ := openStore(t, path)
	other, _ := openStore(t, path)
	tx, err := other.db.Begin() // BEGIN IMMEDIATE: it writes
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 1000 {
		s.Add(Record{Kind: Decided})
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %s", took)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	records(t, s, Query{}, 1000)
}

func TestANewerFileIsNotTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, _ := openStore(t, path)
	if err := s.with(func(db *sql.DB) error { _, err := db.Exec("PRAGMA user_version = 99"); return err }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path, func(error) {}); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Fatalf("%v, %v", s, err)
	}
}

func TestALeaseIsOnes(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "pixels.db"))
	take := func(whose string, d time.Duration, want bool) {
		t.Helper()
		if mine, err := s.Lease("watch", whose, d); err != nil || mine != want {
			t.Fatalf("%s: %v, %v", whose, mine, err)
		}
	}
	take("a", time.Minute, true)
	take("b", time.Minute, false)
	take("a", time.Minute, true)
	now := time.Now().Add(2 * time.Minute)
	s.now = func() time.Time { return now }
	if held, err := s.Held("wat"); err != nil || held {
		t.Fatalf("%v, %v", held, err)
	}
	take("b", time.Minute, true)
	take("a", time.Minute, false)
	if held, err := s.Held("wat"); err != nil || !held {
		t.Fatalf("%v, %v", held, err)
	}
	if err := errors.Join(s.Release("watch", "a"), s.Release("watch", "b")); err != nil {
		t.Fatal(err)
	}
	take("a", time.Minute, true)
}

// BenchmarkAdd measures how long a record holds a call up, at 1000 calls a second and with another process that writes.
func BenchmarkAdd(b *testing.B) {
	path := filepath.Join(b.TempDir(), "pixels.db")
	s, _ := openStore(b, path)
	other, _ := openStore(b, path)
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				other.Add(Record{Kind: Decided})
			}
		}
	})
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		s.Add(Record{Kind: Decided, Owner: "alice", Tool: "exec", Verdict: "allow", Target: "make test"})
		took = append(took, time.Since(start))
		time.Sleep(time.Millisecond)
	}
	close(stop)
	writing.Wait()
	slices.Sort(took)
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
}

// Whose connections are this store's business is known once a call of theirs was decided, here at once, and elsewhere when it
// was written down.
func TestAnOwnerIsKnownFromTheFirstCallOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, _ := openStore(t, path)
	elsewhere, _ := openStore(t, path)
	knows := func(s *Store, owner string) bool {
		t.Helper()
		known, err := s.Knows(owner)
		if err != nil {
			t.Fatal(err)
		}
		return known
	}
	for n := range 20 {
		owner := fmt.Sprintf("owner%d", n)
		if knows(s, owner) {
			t.Errorf("%s is known beforehand", owner)
		}
		s.Add(Record{Kind: Connected, Owner: owner})
		if knows(s, owner) {
			t.Errorf("%s is known for a connection", owner)
		}
		s.Add(Record{Kind: Decided, Owner: owner, Tool: "create_sandbox", Verdict: "allow"})
		if !knows(s, owner) {
			t.Errorf("%s is not known", owner)
		}
	}
	records(t, s, Query{Kind: Decided}, 20)
	if !knows(elsewhere, "owner19") {
		t.Error("another process does not know who is on record")
	}
}
