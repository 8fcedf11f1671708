package policy

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"pixels/internal/plain"
	"pixels/internal/units"
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
	Rule    string       `json:"rule"`              // a domain with its port, as egress.ParseRule reads it
	Reason  string       `json:"reason,omitempty"`  // the agent's words
	Process string       `json:"process,omitempty"` // as the sandbox says
	Source  Source       `json:"source"`
	Wanted  Seconds      `json:"wanted,omitempty"` // for how long the agent wants it
	Count   int          `json:"count"`            // how often it was asked
	Expires time.Time    `json:"expires"`          // when nobody needs to answer any more

	DecidedAt time.Time `json:"decided_at,omitzero"`
	DecidedBy string    `json:"decided_by,omitempty"`
	Scope     Scope     `json:"scope,omitempty"`
	Until     time.Time `json:"until,omitzero"`   // end of the grant
	Answer    string    `json:"answer,omitempty"` // the human's words
}

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

// Scope is what a grant is for.
type Scope string

// The scopes. Once is for one connection, of the sandbox that asked first; Askers for those that asked, and not for what is
// cloned from them.
const (
	Once        Scope = "once"
	Askers      Scope = "asked"
	ThisLineage Scope = "lineage"
)

// Scopes are all of them.
var Scopes = []Scope{Once, Askers, ThisLineage}

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
	ErrNoRequest       = errors.New("no such request")
	// ErrDecided means that another one was first.
	ErrDecided = errors.New("decided already")
)

// Raise puts a question to a human, or adds who asks to one that is open, which stays as an agent asked it first: the same rule
// for the same lineage is one question. One that was answered with no a short time ago is not put again: it is returned as it was answered. fresh tells that it is new.
func (s *Store) Raise(ask Request) (r Request, fresh bool, err error) {
	if s == nil {
		return r, false, errNoStore
	}
	now := s.now()
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
		r, found = scan(tx.QueryRow(columns+` WHERE owner = ? AND lineage = ? AND rule = ? AND (state IN ('open', 'granting') OR state = 'denied' AND decided_at > ?)
			ORDER BY at DESC LIMIT 1`, ask.Owner, ask.Lineage, ask.Rule, now.Add(-refusedFor).UnixMilli()))
		switch {
		case found == nil && (r.State.Ended() || ask.Again):
			return nil
		case found == nil:
			if r.State == RequestOpen { // one that is being granted is for those who asked before
				if err := joins(tx, r.ID, ask); err != nil {
					return err
				}
			}
			// A connection's question has no words; the agent's first ones are put to it, and who was shown it without is shown it again.
			if r.State == RequestOpen && r.Source == ByConnection && ask.Source == ByAgent {
				r.Source, r.Reason, r.Wanted = ByAgent, ask.Reason, ask.Wanted
			}
			if _, err := tx.Exec("UPDATE requests SET last = ?, count = count + 1, source = ?, reason = ?, wanted = ? WHERE id = ?", now.UnixMilli(), r.Source, r.Reason, r.Wanted, r.ID); err != nil {
				return err
			}
			var err error
			r, err = find(tx, r.ID)
			return err
		case !errors.Is(found, sql.ErrNoRows):
			return found
		}
		if err := bounded(tx, ask, now); err != nil {
			return err
		}
		r, fresh = ask, true
		r.ID, r.State, r.At, r.Last, r.Count, r.Expires = "req-"+strings.ToLower(rand.Text()[:10]), RequestOpen, now.UTC(), now.UTC(), 1, now.Add(requestLife).UTC()
		_, err := tx.Exec("INSERT INTO requests (id, at, last, state, owner, sandbox, lineage, rule, reason, process, source, wanted, expires) VALUES (?, ?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			r.ID, now.UnixMilli(), now.UnixMilli(), r.Owner, r.Sandbox, r.Lineage, r.Rule, r.Reason, r.Process, r.Source, r.Wanted, r.Expires.UnixMilli())
		if err == nil {
			err = joins(tx, r.ID, ask)
		}
		if err == nil {
			r, err = find(tx, r.ID)
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
		s.Add(Record{Kind: Asked, Owner: r.Owner, Sandbox: r.Sandbox, Lineage: r.Lineage, Target: r.Rule, Rule: r.ID, Detail: r.Reason, Process: r.Process, Channel: string(r.Source)})
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

// tidy ends requests whose time is over, and gives back what a process that died left half-granted.
func tidy(tx *sql.Tx, now time.Time) error {
	_, err := tx.Exec("UPDATE requests SET state = 'expired', decided_at = ?1, answer = 'nobody answered' WHERE state = 'open' AND expires < ?1", now.UnixMilli())
	if err == nil {
		_, err = tx.Exec("UPDATE requests SET state = 'open', decided_at = 0, decided_by = '' WHERE state = 'granting' AND decided_at < ?", now.Add(-stuckFor).UnixMilli())
	}
	return err
}

// Requests returns those in one of the states, the oldest first; all when none is given. An empty owner is all owners.
func (s *Store) Requests(owner string, limit int, states ...RequestState) (out []Request, err error) {
	err = s.tx(func(tx *sql.Tx) error {
		out = []Request{}
		if err := tidy(tx, s.now()); err != nil {
			return err
		}
		text, args := columns+" WHERE (?1 = '' OR owner = ?1)", []any{owner}
		if len(states) > 0 {
			text += " AND state IN (?" + strings.Repeat(", ?", len(states)-1) + ")"
			for _, state := range states {
				args = append(args, state)
			}
		}
		text += " ORDER BY at DESC, rowid DESC" // several within a millisecond as they came
		if limit > 0 {
			text += fmt.Sprintf(" LIMIT %d", limit)
		}
		rows, err := tx.Query(text, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := scan(rows)
			if err != nil {
				return err
			}
			out = append([]Request{r}, out...)
		}
		return rows.Err()
	})
	return out, err
}

// Request returns one; ErrNoRequest.
func (s *Store) Request(id string) (r Request, err error) {
	err = s.tx(func(tx *sql.Tx) error {
		if err := tidy(tx, s.now()); err != nil {
			return err
		}
		r, err = find(tx, id)
		return err
	})
	return r, err
}

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
func (s *Store) Grant(id, by string, scope Scope, until time.Time, answer string) (Request, error) {
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

// Refusals counts how often each question was answered with no, by owner, lineage and rule.
func (s *Store) Refusals() (out map[[3]string]int, err error) {
	err = s.with(func(db *sql.DB) error {
		out = map[[3]string]int{}
		rows, err := db.Query("SELECT owner, lineage, rule, count(*) FROM requests WHERE state = 'denied' GROUP BY owner, lineage, rule")
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
	_, err := s.move(r.ID, RequestOpen, Request{State: RequestGranted, Scope: Askers, Until: until, Answer: why}, Seen(r.Digest(0), func(Request) time.Duration { return 0 }))
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
	if s == nil {
		return r, errNoStore
	}
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
			if r, err = find(tx, id); err != nil {
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
		if r, err = find(tx, id); err == nil && n == 0 {
			err = r.decided()
		}
		return err
	})
	if err == nil && to.State.Ended() {
		s.Add(Record{Kind: Answered, Owner: r.Owner, Sandbox: r.Sandbox, Lineage: r.Lineage, Target: r.Rule, Rule: r.ID, Verdict: string(r.State), Detail: r.terms(), Channel: channel(r.DecidedBy)})
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
		names := map[Scope]string{Once: "one connection of " + r.Sandbox, Askers: "those that asked: " + strings.Join(r.Names(), " "), ThisLineage: "the whole lineage of " + r.Lineage}
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

var errNoStore = errors.New("there is no store of requests, so no human can be asked; what the server said at its start tells why")

// tx does something in a transaction that writes.
func (s *Store) tx(do func(*sql.Tx) error) error {
	if s == nil {
		return errNoStore
	}
	return s.with(func(db *sql.DB) error {
		tx, err := db.Begin()
		if err != nil {
			return fmt.Errorf("requests: %w", err)
		}
		defer func() { _ = tx.Rollback() }() // no effect once it is committed
		if err := do(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
}

const columns = `SELECT id, at, last, state, owner, sandbox, lineage, rule, reason, process, source, wanted, count, expires, decided_at, decided_by, scope, until, answer,
	(SELECT json_group_array(json_object('Sandbox', a.sandbox, 'Born', a.born, 'Count', a.count, 'Held', a.held)) FROM (SELECT * FROM askers WHERE request = requests.id ORDER BY rowid) a) FROM requests`

func find(tx *sql.Tx, id string) (Request, error) {
	r, err := scan(tx.QueryRow(columns+" WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: %s; `pixels-mcp requests list` shows those that are open", ErrNoRequest, plain.Line(id, 40))
	}
	return r, err
}

func scan(row interface{ Scan(...any) error }) (r Request, err error) {
	var at, last, expires, decided, until int64
	var askers string
	err = row.Scan(&r.ID, &at, &last, &r.State, &r.Owner, &r.Sandbox, &r.Lineage, &r.Rule, &r.Reason, &r.Process, &r.Source, &r.Wanted, &r.Count, &expires, &decided, &r.DecidedBy, &r.Scope, &until, &r.Answer, &askers)
	for _, t := range []struct {
		ms int64
		at *time.Time
	}{{at, &r.At}, {last, &r.Last}, {expires, &r.Expires}, {decided, &r.DecidedAt}, {until, &r.Until}} {
		if t.ms != 0 {
			*t.at = time.UnixMilli(t.ms).UTC()
		}
	}
	if err == nil {
		err = r.readAskers(askers)
	}
	return r, err
}
