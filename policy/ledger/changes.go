package ledger

import (
	"context"
	"database/sql"
	"sync"
	"time"
)

// lookEvery is how often one process looks whether another one has changed the file, while somebody waits for that.
const lookEvery = 100 * time.Millisecond

// changes tells those who wait that something in the file has changed.
type changes struct {
	mu      sync.Mutex
	next    chan struct{} // closed at the next change
	waiting int
	stop    context.CancelFunc // ends the look-out, which lasts as long as somebody waits
}

// Changes returns what gives a channel that is closed at the next change of the file, by this process or another one. A
// change may be one of the records as well. done must be called at the end.
func (s *Store) Changes() (next func() <-chan struct{}, done func()) {
	if s.none {
		return func() <-chan struct{} { return nil }, func() {}
	}
	c := &s.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting++; c.waiting == 1 {
		var ctx context.Context
		ctx, c.stop = context.WithCancel(context.Background())
		go s.lookOut(ctx)
	}
	return c.channel, sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.waiting--; c.waiting == 0 {
			c.stop()
		}
	})
}

func (c *changes) channel() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = make(chan struct{})
	}
	return c.next
}

// tell tells all who wait.
func (c *changes) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		close(c.next)
		c.next = nil
	}
}

// lookOut looks for changes by other connections: SQLite numbers them for each connection (PRAGMA data_version). It takes no
// lock, and reads nothing of the tables. Its first look tells, too, for what changed before that would be missed.
func (s *Store) lookOut(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.with(func(db *sql.DB) error {
			conn, err := db.Conn(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			for last := int64(-1); ; {
				var now int64
				if err := conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&now); err != nil {
					return err
				}
				if now != last {
					last = now
					s.changes.tell()
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(lookEvery):
				}
			}
		})
		if err != nil { // who waits looks again, and learns why
			s.changes.tell()
			select {
			case <-ctx.Done():
			case <-time.After(lookEvery):
			}
		}
	}
}
