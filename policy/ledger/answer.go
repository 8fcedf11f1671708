package ledger

import (
	"database/sql"
	"fmt"
	"strings"
	"time"

	"pixels/internal/plain"
	"pixels/policy"
)

// Version changes whenever any request does. It costs little.
func (s *Store) Version() (v string, err error) {
	err = s.with(func(db *sql.DB) error {
		return db.QueryRow("SELECT count(*) || ':' || coalesce(max(last), 0) || ':' || coalesce(max(decided_at), 0) || ':' || coalesce(sum(state = 'open'), 0) || ':' || coalesce(sum(count), 0) FROM requests").Scan(&v)
	})
	return v, err
}

// Claim makes an open request one whose grant is being brought to the sandboxes: of several who would decide, one gets it,
// and the others ErrDecided. seen says whether it is what the one who decides was shown.
func (s *Store) Claim(id, by string, seen func(Request) error) (Request, error) {
	return s.move(id, RequestOpen, Request{State: RequestGranting, DecidedBy: by}, seen)
}

// Unclaim opens a request again whose grant did not come about.
func (s *Store) Unclaim(id string) error {
	_, err := s.move(id, RequestGranting, Request{State: RequestOpen}, nil)
	return err
}

// Grant ends a request that was claimed.
func (s *Store) Grant(id, by string, scope policy.Scope, until time.Time, answer string) (Request, error) {
	return s.move(id, RequestGranting, Request{State: RequestGranted, DecidedBy: by, Scope: scope, Until: until, Answer: answer}, nil)
}

// Refuse answers an open request with no; seen is as in Claim.
func (s *Store) Refuse(id, by, answer string, seen func(Request) error) (Request, error) {
	return s.move(id, RequestOpen, Request{State: RequestDenied, DecidedBy: by, Answer: answer}, seen)
}

// Seen checks that a request has the digest of what was shown. Without one nothing was.
func Seen(digest string, usual func(Request) time.Duration) func(Request) error {
	return func(r Request) error {
		if d := usual(r); r.State == RequestOpen && r.Digest(d) != digest {
			return r.changed(d)
		}
		return nil
	}
}

// Refusals counts how often each question was answered with no, by owner, lineage and subject.
func (s *Store) Refusals() (out map[[3]string]int, err error) {
	err = s.with(func(db *sql.DB) error {
		out = map[[3]string]int{}
		rows, err := db.Query("SELECT owner, lineage, subject, count(*) FROM requests WHERE state = 'denied' GROUP BY owner, lineage, kind, subject")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var key [3]string
			var n int
			if err := rows.Scan(&key[0], &key[1], &key[2], &n); err != nil {
				return err
			}
			out[key] = n
		}
		return rows.Err()
	})
	return out, err
}

// Settle ends an open request as it was read, for its sandboxes may reach what they asked for. One that has changed since
// stays open.
func (s *Store) Settle(r Request, why string, until time.Time) error {
	_, err := s.move(r.ID, RequestOpen, Request{State: RequestGranted, Scope: policy.Askers, Until: until, Answer: why}, Seen(r.Digest(0), func(Request) time.Duration { return 0 }))
	return err
}

// Revoke notes that what a request was granted was taken back.
func (s *Store) Revoke(id, by string) (Request, error) {
	return s.move(id, RequestGranted, Request{State: RequestRevoked, DecidedBy: by, Until: s.now(), Answer: "it was taken back"}, nil)
}

// Withdraw ends an open request that nobody needs any more.
func (s *Store) Withdraw(id, why string) (Request, error) {
	return s.move(id, RequestOpen, Request{State: RequestWithdrawn, Answer: why}, nil)
}

// move brings a request from one state to another, with what to says of it. seen may refuse; nil never does.
func (s *Store) move(id string, from RequestState, to Request, seen func(Request) error) (r Request, err error) {
	now := s.now()
	var until, decided int64
	if !to.Until.IsZero() {
		until = to.Until.UnixMilli()
	}
	if to.State != RequestOpen {
		decided = now.UnixMilli()
	}
	to.Answer = plain.Line(to.Answer, reasonBytes)
	err = s.tx(func(tx *sql.Tx) error {
		if err := tidy(tx, now); err != nil {
			return err
		}
		if seen != nil {
			if r, err = find(tx, id, now); err != nil {
				return err
			}
			if err := seen(r); err != nil {
				return err
			}
		}
		result, err := tx.Exec("UPDATE requests SET state = ?, decided_at = ?, decided_by = ?, scope = ?, until = ?, answer = ? WHERE id = ? AND state = ?",
			to.State, decided, to.DecidedBy, to.Scope, until, to.Answer, id, from)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		if r, err = find(tx, id, now); err == nil && n == 0 {
			err = r.decided()
		}
		return err
	})
	if err == nil && to.State.Ended() {
		s.Add(Record{Kind: Answered, Owner: r.Owner, Sandbox: r.Sandbox, Lineage: r.Lineage, Target: r.Subject, Rule: r.ID, Verdict: string(r.State), Detail: r.terms(), Channel: channel(r.DecidedBy)})
	}
	return r, err
}

// channel is by which one a human decided, and who is which of them: "cli, by root".
func channel(by string) string {
	name, _, _ := strings.Cut(by, ",")
	return name
}

func who(by string) string {
	_, name, _ := strings.Cut(by, ", ")
	return name
}

// terms says of an answer, for the record, to whom it is, until when, by whom, and what the human said.
func (r Request) terms() string {
	var what []string
	if r.State == RequestGranted {
		names := map[policy.Scope]string{policy.Once: "one connection of " + r.Sandbox, policy.Askers: "those that asked: " + strings.Join(r.Names(), " "), policy.ThisLineage: "the whole lineage of " + r.Lineage}
		what = append(what, "for "+names[r.Scope])
	}
	if !r.Until.IsZero() {
		what = append(what, "until "+r.Until.UTC().Format(time.RFC3339))
	}
	for _, text := range []string{who(r.DecidedBy), r.Answer} {
		if text != "" {
			what = append(what, text)
		}
	}
	return strings.Join(what, ", ")
}

// decided is the error of who comes too late.
func (r Request) decided() error {
	switch r.State {
	case RequestOpen:
		return fmt.Errorf("%w: request %s is open again; look at it once more", ErrDecided, r.ID)
	case RequestGranting:
		return fmt.Errorf("%w: request %s is being granted just now, by %s", ErrDecided, r.ID, r.DecidedBy)
	case RequestExpired, RequestWithdrawn:
		return fmt.Errorf("%w: request %s is %s since %s: %s", ErrDecided, r.ID, r.State, r.DecidedAt.Local().Format("15:04:05 MST"), r.Answer)
	}
	return fmt.Errorf("%w: request %s was %s at %s, by %s", ErrDecided, r.ID, r.State, r.DecidedAt.Local().Format("15:04:05 MST"), r.DecidedBy)
}
