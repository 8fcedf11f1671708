package ledger

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Records are chained: each has a hash of itself and of the hash before it. So a record that was changed, added or taken out
// afterwards shows, unless whoever did it computed all that follows anew: who can write the file can do that.

// The anchors: the record before the first one that is there, with its hash, and the last one that was written, so that a
// missing end shows, too.
const (
	anchorFirst = "first" // what was pruned ends here
	anchorLast  = "last"
)

// link is the hash of a record that follows another one.
func link(before []byte, r Record) []byte {
	b, _ := json.Marshal([]any{ // they can be written
		hex.EncodeToString(before), r.ID, r.At.UnixMilli(), r.Kind, r.Owner, r.Sandbox, r.Lineage, r.Channel, r.Call, r.Tool, r.Verdict, r.Rule, r.Target,
		r.Detail, r.Process, r.Count, r.Code, r.Duration.Milliseconds(),
	})
	sum := sha256.Sum256(b)
	return sum[:]
}

type querier interface {
	Query(text string, args ...any) (*sql.Rows, error)
	QueryRow(text string, args ...any) *sql.Row
}

func anchor(q querier, name string) (id int64, hash []byte, err error) {
	err = q.QueryRow("SELECT id, hash FROM anchors WHERE name = ?", name).Scan(&id, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return id, hash, err
}

func setAnchor(tx *sql.Tx, name string, id int64, hash []byte, at time.Time) error {
	_, err := tx.Exec("INSERT INTO anchors (name, id, hash, at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO UPDATE SET id = ?2, hash = ?3, at = ?4", name, id, hash, at.UnixMilli())
	return err
}

// end returns the last record's ID and hash, from which the chain goes on.
func end(tx *sql.Tx) (id int64, hash []byte, err error) {
	id, hash, err = anchor(tx, anchorLast)
	var most int64
	if err == nil {
		err = tx.QueryRow("SELECT coalesce(max(id), 0) FROM audit").Scan(&most)
	}
	// What somebody else added must not keep anything from being put down after it.
	if id = max(id, most); err != nil || hash != nil {
		return id, hash, err
	}
	// The chain begins here. What is there already is from an older version.
	return id, []byte{}, setAnchor(tx, anchorFirst, id, []byte{}, time.Now())
}

// Chain is what became of the chain of records.
type Chain struct {
	Records int       `json:"records"`         // that were looked at, and are as they were written
	From    time.Time `json:"from,omitzero"`   // of the first of them
	Older   int       `json:"older,omitempty"` // from before the chain, by an older version
	Pruned  int64     `json:"pruned"`          // ID of the last one that was pruned, 0 when none was
	Lost    int       `json:"lost,omitempty"`  // that could not be kept when they were made, as records among them say
	Faults  []string  `json:"faults"`
}

// mostFaults bounds those that Verify tells.
const mostFaults = 20

// Verify looks whether all records are as they were written, and none is missing.
func (s *Store) Verify() (c Chain, err error) {
	err = s.tx(func(tx *sql.Tx) error {
		c = Chain{Faults: []string{}}
		first, hash, err := anchor(tx, anchorFirst)
		if err != nil {
			return err
		}
		last, lastHash, err := anchor(tx, anchorLast)
		if err != nil {
			return err
		}
		if lastHash == nil { // nothing is chained yet, unless somebody took the anchors
			var chained int
			if err := tx.QueryRow("SELECT count(*), count(hash) FROM audit").Scan(&c.Older, &chained); err != nil {
				return err
			}
			if chained > 0 {
				c.Faults = append(c.Faults, fmt.Sprintf("what says where the chain of %d records begins and ends is missing", chained))
			}
			return nil
		}
		c.Pruned = first
		if len(hash) == 0 {
			c.Pruned = 0
			if err := tx.QueryRow("SELECT count(*) FROM audit WHERE id <= ?", first).Scan(&c.Older); err != nil {
				return err
			}
		}
		fault := func(format string, args ...any) {
			if len(c.Faults) < mostFaults {
				c.Faults = append(c.Faults, fmt.Sprintf(format, args...))
			}
		}
		rows, err := tx.Query(selectRecords+", hash FROM audit WHERE id > ? ORDER BY id", first)
		if err != nil {
			return err
		}
		defer rows.Close()
		at := first
		for rows.Next() {
			var has []byte
			r, err := scanRecord(rows, &has)
			if err != nil {
				return err
			}
			if r.ID != at+1 {
				fault("%d records are missing after number %d", r.ID-at-1, at)
				if hash = nil; has != nil {
					hash = has // it goes on from here
				}
			} else if want := link(hash, r); !bytes.Equal(has, want) {
				fault("number %d, of %s, is not as it was written, or what was before it", r.ID, r.At.Local().Format("2006-01-02 15:04:05 MST"))
				hash = has
			} else {
				hash = has
				c.Records++
				if c.From.IsZero() {
					c.From = r.At
				}
				if r.Kind == Lost {
					c.Lost += r.Count
				}
			}
			at = r.ID
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if last != at || lastHash != nil && !bytes.Equal(lastHash, hash) {
			fault("the end is not what was written last: number %d is there, %d was", at, last)
		}
		return nil
	})
	return c, err
}
