package ledger

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pixels/policy"
)

// version1 is a copy of a database that a program of version 1 wrote, with a record and a request of each kind. It was
// written at 2026-11-30 08:00 UTC.
func version1(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "version1.db"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pixels.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestADatabaseOfVersion1Opens(t *testing.T) {
	s, said := openStore(t, version1(t))
	written := time.Date(2026, 11, 30, 8, 10, 0, 0, time.UTC)
	s.now = func() time.Time { return written }
	born := time.UnixMilli(1760000000000).UTC()

	list, err := s.Requests("alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range list {
		got = append(got, fmt.Sprint(r.Subject, " ", r.State, " ", r.Source, " ", r.Scope, " ", r.DecidedBy, " ", r.Names(), " ", r.Wanted, " ", r.Reason))
	}
	want := []string{
		"open.example open agent   [base clone-1] 600 to read the docs",
		"granted.example granted connection asked terminal [base] 600 to read the docs",
		"denied.example denied agent  page [base] 600 to read the docs",
		"half.example open agent   [base] 600 to read the docs", // its granting is long over
	}
	if !slices.Equal(got, want) {
		t.Errorf("requests:\n%s", strings.Join(got, "\n"))
	}
	for _, r := range list {
		if r.Kind != ForDomain || !r.Asked[0].Is("base", born) {
			t.Errorf("%s is of kind %q, asked by %+v", r.Subject, r.Kind, r.Asked)
		}
	}
	if list[0].Count != 2 || !list[1].Until.Equal(time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)) || list[1].Answer != "fine" {
		t.Errorf("%+v", list[:2])
	}

	records, err := s.Records(Query{Owner: "alice", Sandbox: "base", Kind: Executed})
	if err != nil || len(records) != 1 || *records[0].Code != 3 || records[0].Duration != 1500*time.Millisecond || records[0].Target != "make test" {
		t.Errorf("%+v, %v", records, err)
	}
	if c, err := s.Verify(); err != nil || len(c.Faults) > 0 {
		t.Errorf("the chain: %+v, %v", c, err)
	}
	if by, err := s.CutBy("alice", "base", born); by != "terminal" || err != nil {
		t.Errorf("who cut it off: %q, %v", by, err)
	}
	if known, err := s.Knows("alice"); !known || err != nil {
		t.Errorf("alice is known: %t, %v", known, err)
	}

	// All goes on from there.
	if r, err := s.Claim(list[0].ID, "me", nil); err != nil || r.State != RequestGranting {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := s.Grant(list[0].ID, "me", policy.ThisLineage, written.Add(time.Hour), ""); err != nil || r.State != RequestGranted {
		t.Errorf("%+v, %v", r, err)
	}
	if r, fresh, err := s.Raise(ask("alice", "l1", "new.example")); err != nil || !fresh || r.Kind != ForDomain {
		t.Errorf("%+v, %t, %v", r, fresh, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if said.all() != "[]" {
		t.Error(said.all())
	}
}

// A database that is up to date is opened without a write, also while another process writes.
func TestAnOpenDatabaseIsNotWrittenTo(t *testing.T) {
	path := version1(t)
	s, _ := openStore(t, path)
	if err := s.with(func(db *sql.DB) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		again, err := Open(path, func(err error) { t.Error(err) })
		if err != nil {
			return err
		}
		return again.Close()
	}); err != nil {
		t.Error(err)
	}
}
