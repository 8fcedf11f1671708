package ledger

import (
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// What became of an operation is told for an hour, to its owner alone, by any process; one whose server died is lost.
func TestOperations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, _ := openStore(t, path)
	other, _ := openStore(t, path)
	now := time.Now()
	s.now, other.now = func() time.Time { return now }, func() time.Time { return now }
	if err := s.BeginOperation(Operation{ID: "op-a", Owner: "alice", Tool: "clone_sandbox", Started: now}); err != nil {
		t.Fatal(err)
	}
	if o, err := other.Operation("alice", "op-a"); err != nil || !o.Ended.IsZero() || o.Lost || o.Tool != "clone_sandbox" {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := other.Operation("bob", "op-a"); !errors.Is(err, ErrNoOperation) {
		t.Errorf("another's: %v", err)
	}
	if err := other.CancelOperation("bob", "op-a"); err != nil {
		t.Error(err)
	}
	if cancel, err := s.BeatOperation("op-a"); cancel || err != nil {
		t.Errorf("another cancelled it: %t, %v", cancel, err)
	}
	if err := other.CancelOperation("alice", "op-a"); err != nil {
		t.Error(err)
	}
	if cancel, err := s.BeatOperation("op-a"); !cancel || err != nil {
		t.Errorf("%t, %v", cancel, err)
	}
	now = now.Add(lostAfter + time.Second)
	if o, err := other.Operation("alice", "op-a"); err != nil || !o.Lost {
		t.Errorf("nothing was heard of it: %+v, %v", o, err)
	}
	if err := s.EndOperation("op-a", `{"made":2}`, "2 clones"); err != nil {
		t.Fatal(err)
	}
	if o, err := other.Operation("alice", "op-a"); err != nil || o.Lost || o.Ended.IsZero() || o.Result != `{"made":2}` || o.Text != "2 clones" {
		t.Errorf("%+v, %v", o, err)
	}
	now = now.Add(operationsKept - time.Second)
	if _, err := other.Operation("alice", "op-a"); err != nil {
		t.Errorf("within the hour: %v", err)
	}
	now = now.Add(2 * time.Second)
	if _, err := other.Operation("alice", "op-a"); !errors.Is(err, ErrNoOperation) {
		t.Errorf("after an hour: %v", err)
	}
	if err := s.BeginOperation(Operation{ID: "op-b", Owner: "alice", Tool: "x", Started: now}); err != nil {
		t.Fatal(err)
	}
	var count int
	if err := s.db.QueryRow("SELECT count(*) FROM operations").Scan(&count); err != nil || count != 1 {
		t.Errorf("%d are kept, %v", count, err)
	}
	if err := Noop().BeginOperation(Operation{ID: "op-c"}); !errors.Is(err, ErrNone) {
		t.Errorf("without a ledger: %v", err)
	}
}
