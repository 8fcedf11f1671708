package ledger

import (
	"database/sql"
	"errors"
	"time"
)

// Cut notes that a human took the network from a sandbox, which was born at a time: no agent gives it back.
func (s *Store) Cut(owner, sandbox string, born time.Time, by string) error {
	return unlessNone(s.tx(func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT OR REPLACE INTO cuts (owner, sandbox, born, by, at) VALUES (?, ?, ?, ?, ?)", owner, sandbox, milliseconds(born), by, s.now().UnixMilli())
		return err
	}))
}

// Uncut notes that a human gave it back, or that the sandbox is gone.
func (s *Store) Uncut(owner, sandbox string, born time.Time) error {
	return unlessNone(s.tx(func(tx *sql.Tx) error {
		_, err := tx.Exec("DELETE FROM cuts WHERE owner = ? AND sandbox = ? AND born = ?", owner, sandbox, milliseconds(born))
		return err
	}))
}

// CutBy tells who took the network from a sandbox; empty when nobody did, or it was given back.
func (s *Store) CutBy(owner, sandbox string, born time.Time) (by string, err error) {
	err = s.with(func(db *sql.DB) error {
		err := db.QueryRow("SELECT by FROM cuts WHERE owner = ? AND sandbox = ? AND born = ?", owner, sandbox, milliseconds(born)).Scan(&by)
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return err
	})
	return by, unlessNone(err)
}
