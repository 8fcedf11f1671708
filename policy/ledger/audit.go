package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"pixels/internal/fault"
	"pixels/internal/nearest"
	"pixels/internal/plain"
	"pixels/policy"
)

// Record is one line of the record. What does not apply is empty.
type Record struct {
	ID       int64         `json:"id"`
	At       time.Time     `json:"at"`
	Kind     Kind          `json:"kind"`
	Owner    string        `json:"owner,omitempty"`
	Sandbox  string        `json:"sandbox,omitempty"`
	Lineage  string        `json:"lineage,omitempty"`
	Channel  string        `json:"channel,omitempty"` // by which it came: mcp, cli, web
	Call     string        `json:"call,omitempty"`    // ID of the call that it belongs to; all records of one call share it
	Tool     string        `json:"tool,omitempty"`
	Verdict  string        `json:"verdict,omitempty"`
	Rule     string        `json:"rule,omitempty"`    // of the policy, or of the sandbox
	Target   string        `json:"target,omitempty"`  // a domain with its port, a command
	Detail   string        `json:"detail,omitempty"`  // a reason, an error
	Process  string        `json:"process,omitempty"` // as the sandbox itself says
	Count    int           `json:"count"`
	Code     *int          `json:"code,omitempty"` // exit code
	Duration time.Duration `json:"duration,omitempty"`
}

// Kind says what a record is about.
type Kind string

// The kinds of records.
const (
	Decided   Kind = "decision"   // a verdict over a call
	Executed  Kind = "exec"       // a command that ended
	Connected Kind = "connection" // connections of a sandbox, of one verdict, to one place, counted
	Asked     Kind = "request"    // something was put to a human
	Answered  Kind = "answer"     // a human, or the clock, decided about a request
	Changed   Kind = "egress"     // what a sandbox may reach was changed
	Lost      Kind = "gap"        // records that could not be kept
)

// Kinds are all of them.
var Kinds = []Kind{Decided, Executed, Connected, Asked, Answered, Changed, Lost}

// Verdicts are what records can have as one.
var Verdicts = []string{
	string(policy.Allow), string(policy.Deny), string(policy.Ask), "error",
	"allowed", "denied", "held", "cut", "failed", // of connections
	string(RequestGranted), string(RequestExpired), string(RequestWithdrawn), string(RequestRevoked), // of requests, which can be denied, too
}

// NewCall makes an ID for a call, by which its records are found together, and the commands that it runs.
func NewCall() string { return strings.ToLower(rand.Text()[:16]) }

// Bounds of the record.
const (
	queue   = 8192 // records that wait to be written
	batch   = 256  // written at once
	longest = 2000 // bytes of one field

	mostRecords = 2_000_000 // that are kept, some 500 MB

	lockedTries = 12 // until records are given up because others have the file locked: a minute
)

// Add puts a record down. It doesn't wait for the disk; one that can't be kept is said to whoever looks after the store.
func (s *Store) Add(r Record) {
	if s.none {
		return
	}
	if r.At.IsZero() {
		r.At = s.now()
	}
	if r.Count == 0 {
		r.Count = 1
	}
	for _, text := range []*string{&r.Owner, &r.Sandbox, &r.Call, &r.Tool, &r.Rule, &r.Target, &r.Detail, &r.Process} {
		*text = plain.Line(*text, longest)
	}
	if r.Kind == Decided {
		s.owners.Store(r.Owner, true)
	}
	select {
	case s.records <- r:
	default:
		s.lose(1, errors.New("too many wait to be written"))
	}
}

var lost atomic.Int64

// lose says that records could not be kept: at the first, and then at each power of two, so that a full disk fills no log.
func (s *Store) lose(n int, why error) {
	s.missing.Add(int64(n))
	now := lost.Add(int64(n))
	if before := now - int64(n); before == 0 || now>>10 != before>>10 {
		s.say(fmt.Errorf("the record of what was done has gaps: %d lines could not be kept in %s: %w", now, s.path, why))
	}
}

// write writes records until the store closes, and then what is left.
func (s *Store) write(ctx context.Context) {
	defer close(s.written)
	for {
		var some []Record
		select {
		case r := <-s.records:
			some = append(some, r)
		case <-ctx.Done():
			select {
			case r := <-s.records:
				some = append(some, r)
			default:
				return
			}
		}
	more:
		for len(some) < batch {
			select {
			case r := <-s.records:
				some = append(some, r)
			default:
				break more
			}
		}
		missing := s.missing.Swap(0)
		if missing > 0 {
			some = append([]Record{{At: s.now(), Kind: Lost, Count: int(missing), Detail: "that many records could not be kept here"}}, some...)
		}
		err := s.with(func(db *sql.DB) error { return insert(db, some) })
		for tries := 1; locked(err) && tries < lockedTries; tries++ { // each waits for the lock a while
			err = s.with(func(db *sql.DB) error { return insert(db, some) })
		}
		if err != nil {
			s.missing.Add(missing)
			s.lose(len(some), err)
		}
	}
}

func insert(db *sql.DB, some []Record) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect once it is committed
	id, hash, err := end(tx)
	if err != nil {
		return err
	}
	const row = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	statement, err := tx.Prepare("INSERT INTO audit (id, hash, at, kind, owner, sandbox, lineage, channel, call, tool, verdict, rule, target, detail, process, count, code, duration) VALUES " + row)
	if err != nil {
		return err
	}
	defer statement.Close()
	for _, r := range some {
		if r.Kind == Decided {
			if _, err := tx.Exec("INSERT OR IGNORE INTO owners (name) VALUES (?)", r.Owner); err != nil {
				return err
			}
		}
		id++
		r.ID = id
		hash = link(hash, r)
		_, err := statement.Exec(id, hash, r.At.UnixMilli(), r.Kind, r.Owner, r.Sandbox, r.Lineage, r.Channel, r.Call, r.Tool, r.Verdict, r.Rule, r.Target, r.Detail, r.Process, r.Count, r.Code, r.Duration.Milliseconds())
		if err != nil {
			return err
		}
	}
	if len(some) > 0 {
		if err := setAnchor(tx, anchorLast, id, hash, some[len(some)-1].At); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Query asks for records. Empty fields ask for all.
type Query struct {
	Owner, Sandbox, Tool, Call, Verdict string
	Kind                                Kind
	Text                                string // somewhere in target, detail or rule
	Since, Until                        time.Time
	After                               int64 // ID: only later ones
	Limit                               int   // the latest so many; 0 means all
}

// Records returns records, the oldest first.
func (s *Store) Records(q Query) (out []Record, err error) {
	var where []string
	var values []any
	filter := func(clause string, value any) {
		where, values = append(where, clause), append(values, value)
	}
	for column, value := range map[string]string{"owner": q.Owner, "sandbox": q.Sandbox, "tool": q.Tool, "call": q.Call, "verdict": q.Verdict, "kind": string(q.Kind)} {
		if value != "" {
			filter(column+" = ?", value)
		}
	}
	if q.Text != "" {
		filter("instr(lower(target || ' ' || detail || ' ' || rule || ' ' || process), lower(?)) > 0", q.Text)
	}
	if !q.Since.IsZero() {
		filter("at >= ?", q.Since.UnixMilli())
	}
	if !q.Until.IsZero() {
		filter("at < ?", q.Until.UnixMilli())
	}
	if q.After > 0 {
		filter("id > ?", q.After)
	}
	text := selectRecords + " FROM audit"
	if len(where) > 0 {
		text += " WHERE " + strings.Join(where, " AND ")
	}
	text += " ORDER BY id DESC"
	if q.Limit > 0 {
		text += fmt.Sprintf(" LIMIT %d", q.Limit)
	}
	err = s.with(func(db *sql.DB) error {
		out = nil
		rows, err := db.Query(text, values...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := scanRecord(rows)
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	slices.Reverse(out)
	return out, err
}

const selectRecords = "SELECT id, at, kind, owner, sandbox, lineage, channel, call, tool, verdict, rule, target, detail, process, count, code, duration"

// scanRecord reads a row of selectRecords, and what else it has.
func scanRecord(rows *sql.Rows, more ...any) (r Record, err error) {
	var at, took int64
	err = rows.Scan(append([]any{&r.ID, &at, &r.Kind, &r.Owner, &r.Sandbox, &r.Lineage, &r.Channel, &r.Call, &r.Tool, &r.Verdict, &r.Rule, &r.Target, &r.Detail, &r.Process, &r.Count, &r.Code, &took}, more...)...)
	r.At, r.Duration = time.UnixMilli(at).UTC(), time.Duration(took)*time.Millisecond
	return r, err
}

// Has tells whether there is a record of an owner's sandbox by that name; of any owner's where owner is empty.
func (s *Store) Has(owner, sandbox string) (has bool, err error) {
	err = s.with(func(db *sql.DB) error {
		return db.QueryRow("SELECT EXISTS (SELECT 1 FROM audit WHERE sandbox = ? AND ? IN (owner, ''))", sandbox, owner).Scan(&has)
	})
	return has, err
}

// Known refuses a query for what there is not: it would find nothing, which says that nothing was done.
func (s *Store) Known(q Query) error {
	if q.Verdict != "" && !slices.Contains(Verdicts, q.Verdict) {
		return fault.Errorf(fault.Invalid, fault.Hint{}, "the verdict %q is unknown%s: use one of %s", q.Verdict, nearest.Hint(q.Verdict, Verdicts), strings.Join(Verdicts, ", "))
	}
	if err := policy.Verb(q.Tool).Check(); q.Tool != "" && err != nil {
		return fault.Errorf(fault.Invalid, fault.Hint{}, "%v; use one of %s", err, strings.Trim(fmt.Sprint(policy.Verbs), "[]"))
	}
	if q.Sandbox == "" {
		return nil
	}
	has, err := s.Has(q.Owner, q.Sandbox)
	if err == nil && !has {
		err = fault.Errorf(fault.Invalid, fault.Hint{}, "there is no record of a sandbox %q", q.Sandbox)
	}
	return err
}

// Prune removes what is older than keep, and records above a number, but no request that is open.
func (s *Store) Prune(keep time.Duration) error {
	before := s.now().Add(-keep).UnixMilli()
	return unlessNone(s.tx(func(tx *sql.Tx) error {
		// Records go from the first on, so that the chain of the others holds; the last one that goes is its anchor.
		var to int64
		err := tx.QueryRow("SELECT max(coalesce((SELECT min(id) - 1 FROM audit WHERE at >= ?1), (SELECT max(id) FROM audit), 0), coalesce((SELECT max(id) FROM audit), 0) - ?2)", before, mostRecords).Scan(&to)
		var hash []byte
		if err == nil {
			err = tx.QueryRow("SELECT hash FROM audit WHERE id = ?", to).Scan(&hash)
			if errors.Is(err, sql.ErrNoRows) {
				to, err = 0, nil // there is none to go
			}
		}
		if err == nil && to > 0 {
			_, err = tx.Exec("DELETE FROM audit WHERE id <= ?", to)
		}
		if err == nil && hash != nil {
			err = setAnchor(tx, anchorFirst, to, hash, s.now())
		}
		if err == nil {
			_, err = tx.Exec("DELETE FROM requests WHERE last < ? AND state NOT IN ('open', 'granting')", before)
		}
		if err == nil {
			_, err = tx.Exec("DELETE FROM askers WHERE request NOT IN (SELECT id FROM requests)")
		}
		return err
	}))
}

// Use is how often connections of a sandbox to one place were let out.
type Use struct {
	Owner, Sandbox, Target string
	Count                  int
	Last                   time.Time
}

// Uses returns what was let out since a time.
func (s *Store) Uses(since time.Time) (out []Use, err error) {
	err = s.with(func(db *sql.DB) error {
		out = nil
		rows, err := db.Query("SELECT owner, sandbox, target, sum(count), max(at) FROM audit WHERE at >= ? AND kind = 'connection' AND verdict = 'allowed' GROUP BY owner, sandbox, target", since.UnixMilli())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var u Use
			var at int64
			if err := rows.Scan(&u.Owner, &u.Sandbox, &u.Target, &u.Count, &at); err != nil {
				return err
			}
			u.Last = time.UnixMilli(at).UTC()
			out = append(out, u)
		}
		return rows.Err()
	})
	return out, err
}

// Fired counts how often a rule of the policy gave an owner something, and when last.
func (s *Store) Fired(owner, rule string) (n int, last time.Time, err error) {
	err = s.with(func(db *sql.DB) error {
		var at int64
		if err := db.QueryRow("SELECT count(*), coalesce(max(at), 0) FROM audit WHERE kind = ? AND owner = ? AND rule = ?", Changed, owner, rule).Scan(&n, &at); err != nil {
			return err
		}
		if at > 0 {
			last = time.UnixMilli(at).UTC()
		}
		return nil
	})
	return n, last, err
}
