// Package ledger keeps, in one SQLite file that all local processes share, what was decided and done, and the requests that
// wait for a human.
package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Store keeps the record of what was decided, and the requests that wait for a human, in one SQLite file that all local
// processes share. Without it no sandbox and no protection is lost: what a sandbox may reach is in the backend.
type Store struct {
	path string
	none bool // it keeps nothing: Noop
	// process tells this store's reservations from those of others.
	process string
	// say hears of what a human should know: a file that was put aside, records that could not be kept. Never nil.
	say func(error)

	mu     sync.Mutex
	db     *sql.DB
	braked map[string]brake // by owner

	// Fresh hears of each new request, in a goroutine of its own that Close waits for; nil when nobody listens.
	Fresh   func(Request)
	telling sync.WaitGroup

	records chan Record  // to be written
	missing atomic.Int64 // records that could not be kept, and that no record says so of
	owners  sync.Map     // of which calls were decided here, by name
	changes changes
	written chan struct{}
	stop    context.CancelFunc

	now func() time.Time // time.Now, but in tests
}

// OpenRequests returns the IDs of the requests that are open in a store at a path, the oldest first. It changes nothing there.
func OpenRequests(ctx context.Context, path string) (ids []string, err error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(500)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id FROM requests WHERE state = 'open' AND expires > ? ORDER BY at", time.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// Open opens the store at a path, and makes it where there is none. A file that is no database any more is kept
// aside, under a name that say is told, and a new one is begun.
func Open(path string, say func(error)) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("keep records: %w", err)
	}
	s := &Store{path: path, process: rand.Text(), say: say, records: make(chan Record, queue), written: make(chan struct{}), now: time.Now, braked: map[string]brake{}}
	if err := s.open(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.write(ctx)
	return s, nil
}

// open opens the database, or a new one where it is broken.
func (s *Store) open() error {
	db, err := connect(s.path)
	if broken(err) {
		if err = s.putAside(err); err == nil {
			db, err = connect(s.path)
		}
	}
	if err != nil {
		return fmt.Errorf("keep records in %s: %w", s.path, err)
	}
	s.db = db
	return nil
}

func connect(path string) (*sql.DB, error) {
	// Made here, so that nobody else may read it.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	options := url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(wal)", "synchronous(normal)", "foreign_keys(on)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(5) // one of them may look out for changes
	err = migrate(db)
	if err == nil { // what is broken further behind shows here, as far as it shows at all
		_, err = db.Exec("SELECT count(*) FROM requests; SELECT max(at) FROM audit;")
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// broken tells whether an error says that a file is no database any more.
func broken(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB)
}

// locked tells whether an error says that others had the file locked for as long as one waits.
func locked(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// putAside moves a broken file out of the way.
func (s *Store) putAside(why error) error {
	aside := s.path + ".broken-" + time.Now().UTC().Format("20060102-150405.000")
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("it is broken (%w), and can't be put aside: %w", why, err)
	}
	for _, more := range []string{"-wal", "-shm"} {
		if err := os.Rename(s.path+more, aside+more); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("it is broken (%w), and can't be put aside: %w", why, err)
		}
	}
	s.say(fmt.Errorf("the records of %s can't be read (%w): they are kept as %s, and new ones are begun; open requests are gone, agents may ask again", s.path, why, aside))
	return nil
}

// mend puts a database aside that turned out broken while it was open. It tells whether to try again.
func (s *Store) mend(was *sql.DB, err error) bool {
	if !broken(err) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != was { // another one has done it
		return true
	}
	_ = was.Close()
	if err := s.open(); err != nil {
		s.say(err)
		return false
	}
	return true
}

// with does something with the database, once more when it was found broken and begun anew. What it has as a result is a
// fault of the file, the disk or another process.
func (s *Store) with(do func(*sql.DB) error) error {
	if s.none {
		return ErrNone
	}
	for tries := 0; ; tries++ {
		s.mu.Lock()
		db := s.db
		s.mu.Unlock()
		err := do(db)
		if err == nil || tries > 0 || !s.mend(db, err) {
			return err
		}
	}
}

// Path is where the file is; empty where there is none.
func (s *Store) Path() string {
	return s.path
}

// Close writes what is still to be written.
func (s *Store) Close() error {
	if s.none {
		return nil
	}
	s.telling.Wait()
	s.stop()
	<-s.written
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.Close()
}

// Lease takes, or keeps, the right to do something that one process is to do for all: it tells whether it has it for d from now.
func (s *Store) Lease(name, whose string, d time.Duration) (mine bool, err error) {
	now := s.now()
	err = s.with(func(db *sql.DB) error {
		r, err := db.Exec(`INSERT INTO leases (name, whose, until) VALUES (?1, ?2, ?3)
			ON CONFLICT (name) DO UPDATE SET whose = ?2, until = ?3 WHERE whose = ?2 OR until < ?4 OR until > ?5`,
			name, whose, now.Add(d).UnixMilli(), now.UnixMilli(), now.Add(time.Hour).UnixMilli()) // one from far ahead is a clock's fault
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		mine = n > 0
		return err
	})
	return mine, unlessNone(err)
}

// Knows tells whether a decision over a call of an owner's is, or was, on record here: then their sandboxes' connections are
// this store's business.
func (s *Store) Knows(owner string) (known bool, err error) {
	if _, known := s.owners.Load(owner); known { // it may wait to be written
		return true, nil
	}
	err = s.with(func(db *sql.DB) error {
		return db.QueryRow("SELECT EXISTS (SELECT 1 FROM owners WHERE name = ?)", owner).Scan(&known)
	})
	return known, err
}

// Owners are those whose calls came by this store, by name.
func (s *Store) Owners() (out []string, err error) {
	err = s.with(func(db *sql.DB) error {
		out = nil
		rows, err := db.Query("SELECT name FROM owners ORDER BY name")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			out = append(out, name)
		}
		return rows.Err()
	})
	return out, err
}

// Held tells whether anybody has a lease whose name begins with prefix.
func (s *Store) Held(prefix string) (held bool, err error) {
	err = s.with(func(db *sql.DB) error {
		return db.QueryRow("SELECT EXISTS (SELECT 1 FROM leases WHERE name LIKE ? || '%' AND until > ?)", prefix, s.now().UnixMilli()).Scan(&held)
	})
	return held, err
}

// Release gives a lease back.
func (s *Store) Release(name, whose string) error {
	return unlessNone(s.with(func(db *sql.DB) error {
		_, err := db.Exec("DELETE FROM leases WHERE name = ? AND whose = ?", name, whose)
		return err
	}))
}
