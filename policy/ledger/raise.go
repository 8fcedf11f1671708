package ledger

import (
	"cmp"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"pixels/internal/plain"
	"pixels/internal/units"
)

// Raise puts a question to a human, or adds who asks to one that is open, which stays as an agent asked it first: the same
// subject for the same lineage is one question. One that was answered with no a short time ago is not put again: it is returned
// as it was answered. fresh tells that it is new.
func (s *Store) Raise(ask Request) (r Request, fresh bool, err error) {
	now := s.now()
	ask.Kind = cmp.Or(ask.Kind, ForDomain)
	if err := s.brake(ask.Owner, now); err != nil {
		return r, false, err
	}
	ask.Reason, ask.Process = plain.Line(ask.Reason, reasonBytes), plain.Line(ask.Process, reasonBytes)
	err = s.tx(func(tx *sql.Tx) error {
		fresh = false
		if err := tidy(tx, now); err != nil {
			return err
		}
		var found error
		r, found = scan(tx.QueryRow(columns(now)+` WHERE owner = ? AND lineage = ? AND kind = ? AND subject = ? AND (state IN ('open', 'granting') OR state = 'denied' AND decided_at > ?)
			ORDER BY at DESC LIMIT 1`, ask.Owner, ask.Lineage, ask.Kind, ask.Subject, now.Add(-refusedFor).UnixMilli()))
		switch {
		case found == nil && (r.State != RequestOpen || ask.Again): // one that is being granted is for those who asked before
			return nil
		case found == nil:
			if err := joins(tx, r.ID, ask); err != nil {
				return err
			}
			// A connection's question has no words; the agent's first ones are put to it, and who was shown it without is shown it again.
			if r.Source == ByConnection && ask.Source == ByAgent {
				r.Source, r.Reason, r.Wanted = ByAgent, ask.Reason, ask.Wanted
			}
			if _, err := tx.Exec("UPDATE requests SET last = ?, count = count + 1, source = ?, reason = ?, wanted = ? WHERE id = ?", now.UnixMilli(), r.Source, r.Reason, r.Wanted, r.ID); err != nil {
				return err
			}
			var err error
			r, err = find(tx, r.ID, now)
			return err
		case !errors.Is(found, sql.ErrNoRows):
			return found
		}
		if err := bounded(tx, ask, now); err != nil {
			return err
		}
		r, fresh = ask, true
		r.ID, r.State, r.At, r.Last, r.Count, r.Expires = "req-"+strings.ToLower(rand.Text()[:10]), RequestOpen, now.UTC(), now.UTC(), 1, now.Add(requestLife).UTC()
		_, err := tx.Exec("INSERT INTO requests (id, at, last, state, owner, sandbox, lineage, kind, subject, reason, process, source, wanted, expires) VALUES (?, ?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			r.ID, now.UnixMilli(), now.UnixMilli(), r.Owner, r.Sandbox, r.Lineage, r.Kind, r.Subject, r.Reason, r.Process, r.Source, r.Wanted, r.Expires.UnixMilli())
		if err == nil {
			err = joins(tx, r.ID, ask)
		}
		if err == nil {
			r, err = find(tx, r.ID, now)
		}
		return err
	})
	if errors.Is(err, ErrTooManyRequests) {
		s.mu.Lock()
		s.braked[ask.Owner] = brake{now.Add(brakeTime), err}
		s.mu.Unlock()
	}
	if err == nil && fresh {
		if s.Fresh != nil {
			s.telling.Go(func() { s.Fresh(r) })
		}
		s.Add(Record{Kind: Asked, Owner: r.Owner, Sandbox: r.Sandbox, Lineage: r.Lineage, Target: r.Subject, Rule: r.ID, Detail: r.Reason, Process: r.Process, Channel: string(r.Source)})
	}
	return r, fresh, err
}

// brake is that an owner asked too much: until a moment later the answer is the same, and no other process has to wait
// for the database meanwhile.
type brake struct {
	until time.Time
	err   error
}

const brakeTime = time.Second

func (s *Store) brake(owner string, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.braked[owner]; ok && now.Before(b.until) {
		return b.err
	}
	delete(s.braked, owner)
	return nil
}

// bounded refuses a new request of who has too many.
func bounded(tx *sql.Tx, ask Request, now time.Time) error {
	for _, b := range []struct {
		most  int
		what  string
		query string
		args  []any
	}{
		{maxOpen, "open for this sandbox and its clones", "SELECT count(*) FROM requests WHERE state IN ('open', 'granting') AND owner = ? AND lineage = ?", []any{ask.Owner, ask.Lineage}},
		{maxOwnerOpen, "open", "SELECT count(*) FROM requests WHERE state IN ('open', 'granting') AND owner = ?", []any{ask.Owner}},
		{maxRate, "new within " + units.Duration(rateWindow), "SELECT count(*) FROM requests WHERE owner = ? AND at > ?", []any{ask.Owner, now.Add(-rateWindow).UnixMilli()}},
	} {
		var have int
		if err := tx.QueryRow(b.query, b.args...).Scan(&have); err != nil {
			return err
		}
		if have >= b.most {
			return fmt.Errorf("%w: %d are %s, which is as many as may be; wait for answers, or ask for *.DOMAIN", ErrTooManyRequests, have, b.what)
		}
	}
	return nil
}

// Tidy writes down what became of requests by time alone, where there is anything to write.
func (s *Store) Tidy() error {
	now := s.now()
	var some bool
	err := s.with(func(db *sql.DB) error {
		return db.QueryRow("SELECT EXISTS (SELECT 1 FROM requests WHERE state = 'open' AND expires < ? OR state = 'granting' AND decided_at < ?)",
			now.UnixMilli(), now.Add(-stuckFor).UnixMilli()).Scan(&some)
	})
	if err != nil || !some {
		return unlessNone(err)
	}
	return s.tx(func(tx *sql.Tx) error { return tidy(tx, now) })
}

// tidy gives back what a process that died left half-granted, and ends requests whose time is over.
func tidy(tx *sql.Tx, now time.Time) error {
	_, err := tx.Exec("UPDATE requests SET state = 'open', decided_at = 0, decided_by = '' WHERE state = 'granting' AND decided_at < ?", now.Add(-stuckFor).UnixMilli())
	if err == nil {
		_, err = tx.Exec("UPDATE requests SET state = 'expired', decided_at = ?1, answer = 'nobody answered' WHERE state = 'open' AND expires < ?1", now.UnixMilli())
	}
	return err
}
