package ledger

import (
	"database/sql"
	"time"
)

// Renamed has what is open about a sandbox go on under another name: requests that it asked, and that a human took its network. born is
// when the sandbox was made.
func (s *Store) Renamed(owner, from, to string, born time.Time) error {
	return unlessNone(s.tx(func(tx *sql.Tx) error {
		for _, change := range []string{
			`UPDATE requests SET sandbox = ?2 WHERE owner = ?1 AND sandbox = ?3 AND state IN ('open', 'granting')
				AND EXISTS (SELECT 1 FROM askers WHERE request = id AND askers.sandbox = ?3 AND askers.born = ?4)`,
			`UPDATE OR REPLACE askers SET sandbox = ?2 WHERE sandbox = ?3 AND born = ?4
				AND request IN (SELECT id FROM requests WHERE owner = ?1 AND state IN ('open', 'granting'))`,
			`UPDATE OR REPLACE cuts SET sandbox = ?2 WHERE owner = ?1 AND sandbox = ?3 AND born = ?4`,
		} {
			if _, err := tx.Exec(change, owner, to, from, milliseconds(born)); err != nil {
				return err
			}
		}
		return nil
	}))
}
