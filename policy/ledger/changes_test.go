package ledger

import (
	"context"
	"database/sql"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Many who wait write nothing, and learn of an answer by this process or another one.
func TestWhoWaitsWritesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	say := func(err error) { t.Error(err) }
	here, err := Open(path, say)
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := Open(path, say)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	watch, err := connect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	watch.SetMaxOpenConns(1) // the number is each connection's own
	number := func() (n int64) {
		t.Helper()
		if err := watch.QueryRow("PRAGMA data_version").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, answering := range []*Store{here, there} {
		r, _, err := here.Raise(Request{Owner: "me", Sandbox: "box", Lineage: "l", Subject: map[bool]string{true: "a.example.com", false: "b.example.com"}[answering == here], Source: ByAgent})
		if err != nil {
			t.Fatal(err)
		}
		var waiting sync.WaitGroup
		took := make(chan time.Duration, 20)
		var answered time.Time
		for range cap(took) {
			waiting.Go(func() {
				changes, done := here.Changes()
				defer done()
				for {
					changed := changes()
					now, err := here.Request(r.ID)
					if err != nil || now.State == RequestDenied {
						took <- time.Since(answered)
						return
					}
					<-changed
				}
			})
		}
		time.Sleep(300 * time.Millisecond)
		before := number()
		time.Sleep(time.Second)
		if after := number(); after != before {
			t.Error("something was written while all waited")
		}
		answered = time.Now()
		if _, err := answering.Refuse(r.ID, "me", "", nil); err != nil {
			t.Fatal(err)
		}
		waiting.Wait()
		close(took)
		for d := range took {
			if d > 5*time.Second {
				t.Errorf("one learnt of the answer after %s", d)
			}
		}
	}
}

// Reading waits for nobody who writes, and sees what is over before that is written down.
func TestReadingWaitsForNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, _, err := s.Raise(Request{Owner: "me", Sandbox: "box", Lineage: "l", Subject: "a.example.com", Source: ByAgent})
	if err != nil {
		t.Fatal(err)
	}
	other, err := connect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.BeginTx(context.Background(), &sql.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("UPDATE requests SET count = 7"); err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return time.Now().Add(2 * requestLife) }
	start := time.Now()
	now, err := s.Request(r.ID)
	if err != nil || now.State != RequestExpired || now.Answer != "nobody answered" || now.Count != 1 {
		t.Errorf("it is %+v, %v", now, err)
	}
	if list, err := s.Requests("", 0, RequestOpen); err != nil || len(list) != 0 {
		t.Errorf("open are %+v, %v", list, err)
	}
	if list, err := s.Requests("", 0, RequestExpired); err != nil || len(list) != 1 {
		t.Errorf("expired are %+v, %v", list, err)
	}
	if took := time.Since(start); took > 4*time.Second { // a writer is waited for 5 s
		t.Errorf("reading took %s", took)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := s.Tidy(); err != nil {
		t.Fatal(err)
	}
	var state string
	if err := other.QueryRow("SELECT state FROM requests").Scan(&state); err != nil || state != "expired" {
		t.Errorf("written is %q, %v", state, err)
	}
}
