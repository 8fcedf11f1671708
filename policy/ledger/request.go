package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pixels/internal/fault"
	"pixels/internal/plain"
	"pixels/policy"
)

// Request is a question to a human: may the sandboxes of a lineage reach a domain?
type Request struct {
	ID      string       `json:"id"`
	At      time.Time    `json:"at"`   // asked first
	Last    time.Time    `json:"last"` // asked last
	State   RequestState `json:"state"`
	Owner   string       `json:"owner"`
	Sandbox string       `json:"sandbox"`       // the one that asked first
	Born    time.Time    `json:"-"`             // of a question: when that sandbox was made
	Again   bool         `json:"-"`             // of a question: it was put just before, and counts no second time
	Asked   []Asker      `json:"asked"`         // all that asked
	Held    time.Time    `json:"held,omitzero"` // until when a connection waits for the answer, of several the last one
	Lineage string       `json:"lineage"`
	Kind    RequestKind  `json:"kind"`
	Subject string       `json:"rule"`              // of a domain: the domain with its port, as egress.ParseRule reads it
	Reason  string       `json:"reason,omitempty"`  // the agent's words
	Process string       `json:"process,omitempty"` // as the sandbox says
	Source  Source       `json:"source"`
	Wanted  Seconds      `json:"wanted,omitempty"` // for how long the agent wants it
	Count   int          `json:"count"`            // how often it was asked
	Expires time.Time    `json:"expires"`          // when nobody needs to answer any more

	DecidedAt time.Time    `json:"decided_at,omitzero"`
	DecidedBy string       `json:"decided_by,omitempty"`
	Scope     policy.Scope `json:"scope,omitempty"`
	Until     time.Time    `json:"until,omitzero"`   // end of the grant
	Answer    string       `json:"answer,omitempty"` // the human's words
}

// RequestKind is what a request is for.
type RequestKind string

// ForDomain is a request to reach a domain, and the kind of a question that names none.
const ForDomain RequestKind = "domain"

// IsRequest tells whether an ID has the form of a request's.
func IsRequest(id string) bool { return strings.HasPrefix(id, "req-") }

// Seconds is a length of time that is kept, and written as JSON, in seconds.
type Seconds int64

// Duration is the length.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// RequestState is what became of a request.
type RequestState string

// The states of a request. Granting is one whose grant is just being brought to the sandboxes.
const (
	RequestOpen      RequestState = "open"
	RequestGranting  RequestState = "granting"
	RequestGranted   RequestState = "granted"
	RequestDenied    RequestState = "denied"
	RequestExpired   RequestState = "expired"
	RequestWithdrawn RequestState = "withdrawn" // its sandboxes are gone
	RequestRevoked   RequestState = "revoked"   // it was granted, and that was taken back
)

// Ended tells whether there is nothing to wait for any more.
func (s RequestState) Ended() bool { return s != RequestOpen && s != RequestGranting }

// Source is what raised a request.
type Source string

// The sources.
const (
	ByAgent      Source = "agent"
	ByConnection Source = "connection"
)

// Bounds of what agents and their sandboxes may ask.
const (
	requestLife  = 24 * time.Hour   // until an open request expires
	refusedFor   = time.Hour        // a question that was answered with no is not put again
	stuckFor     = time.Minute      // a process that died while it granted leaves a request so long
	maxOpen      = 20               // open requests of one lineage
	maxOwnerOpen = 100              // and of one owner
	maxRate      = 60               // new requests of one owner
	rateWindow   = 10 * time.Minute // in that time
	reasonBytes  = 300
)

// What a caller tells apart.
var (
	ErrTooManyRequests = errors.New("too many requests")
	ErrNoRequest       = fault.Errorf(fault.NotFound, fault.Hint{}, "no such request")
	// ErrDecided means that another one was first.
	ErrDecided = errors.New("decided already")
)

// Requests returns those in one of the states, the oldest first; all when none is given. An empty owner is all owners.
func (s *Store) Requests(owner string, limit int, states ...RequestState) (out []Request, err error) {
	err = s.with(func(db *sql.DB) error {
		out = []Request{}
		text, args := columns(s.now())+" WHERE (?1 = '' OR owner = ?1)", []any{owner}
		if len(states) > 0 {
			text += " AND state IN (?" + strings.Repeat(", ?", len(states)-1) + ")"
			for _, state := range states {
				args = append(args, state)
			}
		}
		text += " ORDER BY at DESC, number DESC" // several within a millisecond as they came
		if limit > 0 {
			text += fmt.Sprintf(" LIMIT %d", limit)
		}
		rows, err := db.Query(text, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := scan(rows)
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		slices.Reverse(out)
		return rows.Err()
	})
	return out, err
}

// Request returns one; ErrNoRequest.
func (s *Store) Request(id string) (r Request, err error) {
	err = s.with(func(db *sql.DB) (err error) {
		r, err = find(db, id, s.now())
		return err
	})
	return r, err
}

// tx does something in a transaction that writes.
func (s *Store) tx(do func(*sql.Tx) error) error {
	return s.with(func(db *sql.DB) error {
		tx, err := db.Begin()
		if err != nil {
			return fmt.Errorf("write to the ledger: %w", err)
		}
		defer func() { _ = tx.Rollback() }() // no effect once it is committed
		if err := do(tx); err != nil {
			return err
		}
		err = tx.Commit()
		s.changes.tell()
		return err
	})
}

// columns selects requests as they are at a time: one whose end is over has expired, and one that a process which died left
// half-granted is open, whether or not that was written down yet.
func columns(now time.Time) string {
	stuck := fmt.Sprintf("state = 'granting' AND decided_at < %d", now.Add(-stuckFor).UnixMilli())
	expired := fmt.Sprintf("(state = 'open' OR %s) AND expires < %d", stuck, now.UnixMilli())
	return fmt.Sprintf(`SELECT id, at, last, state, owner, sandbox, lineage, kind, subject, reason, process, source, wanted, count, expires, decided_at, decided_by, scope, until, answer,
	(SELECT json_group_array(json_object('Sandbox', a.sandbox, 'Born', a.born, 'Count', a.count, 'Held', a.held)) FROM (SELECT * FROM askers WHERE request = requests.id ORDER BY rowid) a)
	FROM (SELECT rowid AS number, id, at, last, owner, sandbox, lineage, kind, subject, reason, process, source, wanted, count, expires, scope, until,
		CASE WHEN %[1]s THEN 'expired' WHEN %[2]s THEN 'open' ELSE state END AS state,
		CASE WHEN %[1]s THEN %[3]d WHEN %[2]s THEN 0 ELSE decided_at END AS decided_at,
		CASE WHEN %[2]s THEN '' ELSE decided_by END AS decided_by,
		CASE WHEN %[1]s THEN 'nobody answered' ELSE answer END AS answer
		FROM requests) requests`, expired, stuck, now.UnixMilli())
}

func find(from querier, id string, now time.Time) (Request, error) {
	r, err := scan(from.QueryRow(columns(now)+" WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		err = fault.With(fmt.Errorf("%w: %s", ErrNoRequest, plain.Line(id, 40)), fault.Hint{Action: fault.ListRequests})
	}
	return r, err
}

func scan(row interface{ Scan(...any) error }) (r Request, err error) {
	var at, last, expires, decided, until int64
	var askers string
	err = row.Scan(&r.ID, &at, &last, &r.State, &r.Owner, &r.Sandbox, &r.Lineage, &r.Kind, &r.Subject, &r.Reason, &r.Process, &r.Source, &r.Wanted, &r.Count, &expires, &decided, &r.DecidedBy, &r.Scope, &until, &r.Answer, &askers)
	for _, t := range []struct {
		ms int64
		at *time.Time
	}{{at, &r.At}, {last, &r.Last}, {expires, &r.Expires}, {decided, &r.DecidedAt}, {until, &r.Until}} {
		*t.at = moment(t.ms)
	}
	if err == nil {
		err = r.readAskers(askers)
	}
	return r, err
}

// moment is a time of the file; 0 is none.
func moment(ms int64) (at time.Time) {
	if ms != 0 {
		at = time.UnixMilli(ms).UTC()
	}
	return at
}
