package ledger

import (
	"database/sql"
	"errors"
	"time"
)

// Operation is a call that outlasted its answer.
type Operation struct {
	ID, Owner, Tool string
	Started, Ended  time.Time // Ended is zero while it is under way
	Result          string    // as JSON; empty where it has none
	Text            string    // the same in words, or why it failed
	Lost            bool      // the server that it ran in has gone without a word
	Cancel          bool      // somebody wants it ended
}

// ErrNoOperation means that there is none of that name, or that it ended too long ago.
var ErrNoOperation = errors.New("there is no such operation, or it ended over an hour ago")

const (
	// operationsKept is how long the result of an operation can be had after its end.
	operationsKept = time.Hour
	// lostAfter is how long nothing is heard of an operation until it is taken for lost. It is to be heard of several times in that.
	lostAfter = 15 * time.Second
)

// BeginOperation puts down that an operation is under way.
func (s *Store) BeginOperation(o Operation) error {
	return s.tx(func(tx *sql.Tx) error {
		now := s.now()
		if _, err := tx.Exec("DELETE FROM operations WHERE ended > 0 AND ended < ?1 OR beat < ?1", now.Add(-operationsKept).UnixMilli()); err != nil {
			return err
		}
		_, err := tx.Exec("INSERT INTO operations (id, owner, tool, started, beat) VALUES (?, ?, ?, ?, ?)", o.ID, o.Owner, o.Tool, milliseconds(o.Started), now.UnixMilli())
		return err
	})
}

// BeatOperation says that an operation goes on, and tells whether somebody wants it ended.
func (s *Store) BeatOperation(id string) (cancel bool, err error) {
	err = s.with(func(db *sql.DB) error {
		if _, err := db.Exec("UPDATE operations SET beat = ? WHERE id = ?", s.now().UnixMilli(), id); err != nil {
			return err
		}
		return db.QueryRow("SELECT cancel FROM operations WHERE id = ?", id).Scan(&cancel)
	})
	return cancel, err
}

// EndOperation puts down what became of an operation.
func (s *Store) EndOperation(id, result, text string) error {
	return s.with(func(db *sql.DB) error {
		_, err := db.Exec("UPDATE operations SET ended = ?, result = ?, text = ? WHERE id = ?", s.now().UnixMilli(), result, text, id)
		return err
	})
}

// CancelOperation asks the server in which an owner's operation runs to end it.
func (s *Store) CancelOperation(owner, id string) error {
	return s.with(func(db *sql.DB) error {
		_, err := db.Exec("UPDATE operations SET cancel = 1 WHERE id = ? AND owner = ?", id, owner)
		return err
	})
}

// Operation returns an owner's operation; ErrNoOperation.
func (s *Store) Operation(owner, id string) (o Operation, err error) {
	err = s.with(func(db *sql.DB) error {
		o = Operation{ID: id, Owner: owner}
		var started, ended, beat int64
		err := db.QueryRow("SELECT tool, started, ended, beat, result, text, cancel FROM operations WHERE id = ? AND owner = ? AND (ended = 0 OR ended >= ?)", id, owner, s.now().Add(-operationsKept).UnixMilli()).
			Scan(&o.Tool, &started, &ended, &beat, &o.Result, &o.Text, &o.Cancel)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoOperation
		}
		o.Started, o.Ended = moment(started), moment(ended)
		o.Lost = ended == 0 && s.now().Sub(moment(beat)) > lostAfter
		return err
	})
	return o, err
}
