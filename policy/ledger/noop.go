package ledger

import (
	"errors"
	"time"
)

// ErrNone means that there is no ledger, so that nothing can be asked of a human.
var ErrNone = errors.New("there is no store of requests, so no human can be asked; what the server said at its start tells why")

// Noop is a ledger that keeps nothing. What would be noted is dropped, nobody has a lease, and nothing changes; what needs a
// ledger is ErrNone.
func Noop() *Store { return &Store{none: true, now: time.Now, braked: map[string]brake{}} }

// unlessNone is an error, but for ErrNone: where nothing is noted there is nothing to fail.
func unlessNone(err error) error {
	if errors.Is(err, ErrNone) {
		return nil
	}
	return err
}
