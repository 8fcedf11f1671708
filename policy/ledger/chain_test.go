package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// written waits until so many records are there.
func written(t *testing.T, s *Store, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		list, err := s.Records(Query{})
		if err != nil || time.Now().After(end) {
			t.Fatalf("%d records, %v", len(list), err)
		}
		if len(list) >= n {
			return
		}
	}
}

func TestTheChainShowsWhatWasChanged(t *testing.T) {
	fill := func(s *Store, n int) {
		for i := range n {
			code := i
			s.Add(Record{Kind: Executed, Owner: "alice", Sandbox: fmt.Sprint("box", i), Target: "make", Code: &code, Duration: time.Second})
		}
	}
	for what, c := range map[string]struct{ change, says string }{
		"nothing":               {"SELECT 1", ""},
		"a record is changed":   {"UPDATE audit SET target = 'true' WHERE id = 7", "number 7"},
		"a record is taken out": {"DELETE FROM audit WHERE id = 7", "1 records are missing after number 6"},
		"a hash is changed":     {"UPDATE audit SET hash = x'00' WHERE id = 7", "number 7"},
		"the first is taken":    {"DELETE FROM audit WHERE id = 1", "1 records are missing after number 0"},
		"the last is taken":     {"DELETE FROM audit WHERE id = 20", "the end is not what was written last: number 19 is there, 20 was"},
		"the anchors are taken": {"DELETE FROM anchors", "where the chain of 20 records begins"},
		"one is added":          {"INSERT INTO audit (id, at, kind, hash) VALUES (21, 0, 'exec', x'00')", "number 21"},
		"all are taken":         {"DELETE FROM audit", "the end is not what was written last: number 0 is there, 20 was"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStore(t)
			fill(s, 20)
			written(t, s, 20)
			if err := s.with(func(db *sql.DB) error { _, err := db.Exec(c.change); return err }); err != nil {
				t.Fatal(err)
			}
			chain, err := s.Verify()
			if err != nil || (c.says == "") != (len(chain.Faults) == 0) || !strings.Contains(strings.Join(chain.Faults, "; "), c.says) {
				t.Errorf("%+v, %v", chain, err)
			}
			if c.says == "" && chain.Records != 20 {
				t.Errorf("%+v", chain)
			}
		})
	}
}

func TestTheChainGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	one, _ := openStore(t, path)
	two, _ := openStore(t, path)
	// Of several processes, over a prune, and after a loss.
	var all sync.WaitGroup
	for _, s := range []*Store{one, two} {
		all.Go(func() {
			for i := range 300 {
				s.Add(Record{Kind: Decided, Owner: "alice", Target: fmt.Sprint(i)})
			}
		})
	}
	all.Wait()
	written(t, one, 600)
	if c, err := one.Verify(); err != nil || len(c.Faults) > 0 || c.Records != 600 || c.Pruned != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	time.Sleep(20 * time.Millisecond)
	if err := one.Prune(10 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	two.lose(3, fmt.Errorf("a test"))
	two.Add(Record{Kind: Decided, Owner: "alice", Target: "after"})
	written(t, one, 2)
	c, err := one.Verify()
	if err != nil || len(c.Faults) > 0 || c.Records != 2 || c.Pruned != 600 || c.Lost != 3 {
		t.Errorf("%+v, %v", c, err)
	}
}

// Whoever adds a record, as an older version does, shows, and keeps nothing from being put down.
func TestWhatWasAddedKeepsNothingOut(t *testing.T) {
	s := newStore(t)
	s.Add(Record{Kind: Decided, Owner: "alice"})
	written(t, s, 1)
	if err := s.with(func(db *sql.DB) error {
		_, err := db.Exec("INSERT INTO audit (at, kind) VALUES (1, 'exec')")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s.Add(Record{Kind: Decided, Owner: "alice"})
	written(t, s, 3)
	if c, err := s.Verify(); err != nil || len(c.Faults) == 0 || !strings.Contains(c.Faults[0], "number 2") {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestAFileOfAnOlderVersionIsChainedFromNowOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(migrations[0](tx), tx.Commit()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 1; INSERT INTO audit (at, kind) VALUES (1000, 'exec'), (2000, 'exec')"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ := openStore(t, path)
	if c, err := s.Verify(); err != nil || len(c.Faults) > 0 || c.Older != 2 {
		t.Errorf("before the first of its own: %+v, %v", c, err)
	}
	s.Add(Record{Kind: Decided, Owner: "alice"})
	written(t, s, 3)
	if c, err := s.Verify(); err != nil || len(c.Faults) > 0 || c.Records != 1 || c.Older != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}
