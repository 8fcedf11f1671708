package ledger

import (
	"database/sql"
	"encoding/json"
	"time"

	"pixels/policy"
)

// Reservation is what a call that is under way in some process takes of a quota. Of two that take at once, the later one counts the
// earlier one: so they never pass a quota together.
type Reservation struct {
	ID      int64 // in the order in which they were made
	Owner   string
	Takes   policy.Usage
	Names   []string // of the sandboxes that it is making
	Pending bool     // it is not decided yet whether it may
}

const (
	reservedFor = 10 * time.Minute // unless it is released: its process may have died
	// listedWithin is how soon other processes hear from the backend what was made: until then they ask it.
	listedWithin = 2 * time.Second
)

// Reserve puts a reservation down, and returns its ID; 0 where there is no ledger.
func (s *Store) Reserve(owner string, takes policy.Usage) (id int64, err error) {
	b, err := json.Marshal(takes)
	if err != nil {
		return 0, err
	}
	err = s.tx(func(tx *sql.Tx) error {
		now := s.now()
		if _, err := tx.Exec("DELETE FROM reservations WHERE until < ?", now.UnixMilli()); err != nil {
			return err
		}
		r, err := tx.Exec("INSERT INTO reservations (owner, takes, names, pending, process, until) VALUES (?, ?, '[]', 1, ?, ?)", owner, string(b), s.process, now.Add(reservedFor).UnixMilli())
		if err != nil {
			return err
		}
		id, err = r.LastInsertId()
		return err
	})
	return id, unlessNone(err)
}

// Reserved are the reservations of other processes that were made before one, of an owner and those below. recent tells that others
// make something of the like, or just have: what is known of the backend may be older than that.
func (s *Store) Reserved(top string, before int64) (out []Reservation, recent bool, err error) {
	err = s.with(func(db *sql.DB) error {
		out, recent = nil, false
		rows, err := db.Query(`SELECT id, owner, takes, names, pending FROM reservations
			WHERE process != ?1 AND until >= ?2 AND (owner = ?3 OR substr(owner, 1, length(?3) + 1) = ?3 || '/')`, s.process, s.now().UnixMilli(), top)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r Reservation
			var takes, names string
			if err := rows.Scan(&r.ID, &r.Owner, &takes, &names, &r.Pending); err != nil {
				return err
			}
			if recent = true; r.ID > before || takes == "" {
				continue
			}
			if err := json.Unmarshal([]byte(takes), &r.Takes); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(names), &r.Names); err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	return out, recent, unlessNone(err)
}

// Confirm notes that a reservation's call may go on, and which sandboxes it is making.
func (s *Store) Confirm(id int64, names []string) error {
	return s.reservation(id, "UPDATE reservations SET pending = 0, names = ?2 WHERE id = ?1", names)
}

// Made ends a reservation: what it took is in the backend, or was given up.
func (s *Store) Made(id int64) error {
	return s.reservation(id, "UPDATE reservations SET pending = 0, takes = '', names = ?2, until = ?3 WHERE id = ?1", nil, s.now().Add(listedWithin).UnixMilli())
}

func (s *Store) reservation(id int64, text string, names []string, more ...any) error {
	if id == 0 {
		return nil
	}
	b, err := json.Marshal(append([]string{}, names...))
	if err != nil {
		return err
	}
	return unlessNone(s.with(func(db *sql.DB) error {
		_, err := db.Exec(text, append([]any{id, string(b)}, more...)...)
		return err
	}))
}
