package ledger

import (
	"database/sql"
	"fmt"
)

// migrations bring the tables from one version to the next; the version of a file is how many it has behind it (PRAGMA
// user_version). One that was released is never changed: what is new goes to the end.
var migrations = []func(*sql.Tx) error{
	run(`
CREATE TABLE IF NOT EXISTS audit (
	id       INTEGER PRIMARY KEY,
	at       INTEGER NOT NULL, -- Unix time in milliseconds
	kind     TEXT NOT NULL,
	owner    TEXT NOT NULL DEFAULT '',
	sandbox  TEXT NOT NULL DEFAULT '',
	lineage  TEXT NOT NULL DEFAULT '',
	channel  TEXT NOT NULL DEFAULT '',
	call     TEXT NOT NULL DEFAULT '',
	tool     TEXT NOT NULL DEFAULT '',
	verdict  TEXT NOT NULL DEFAULT '',
	rule     TEXT NOT NULL DEFAULT '',
	target   TEXT NOT NULL DEFAULT '',
	detail   TEXT NOT NULL DEFAULT '',
	process  TEXT NOT NULL DEFAULT '',
	count    INTEGER NOT NULL DEFAULT 1,
	code     INTEGER,
	duration INTEGER NOT NULL DEFAULT 0 -- milliseconds
);
CREATE INDEX IF NOT EXISTS audit_at ON audit (at);
CREATE INDEX IF NOT EXISTS audit_call ON audit (call) WHERE call != '';
CREATE TABLE IF NOT EXISTS requests (
	id         TEXT PRIMARY KEY,
	at         INTEGER NOT NULL,
	last       INTEGER NOT NULL, -- when it was asked last
	state      TEXT NOT NULL,
	owner      TEXT NOT NULL,
	sandbox    TEXT NOT NULL,
	lineage    TEXT NOT NULL,
	rule       TEXT NOT NULL,
	reason     TEXT NOT NULL DEFAULT '',
	process    TEXT NOT NULL DEFAULT '',
	source     TEXT NOT NULL, -- agent or connection
	wanted     INTEGER NOT NULL DEFAULT 0, -- for how long, in seconds
	count      INTEGER NOT NULL DEFAULT 1,
	expires    INTEGER NOT NULL,
	decided_at INTEGER NOT NULL DEFAULT 0,
	decided_by TEXT NOT NULL DEFAULT '',
	scope      TEXT NOT NULL DEFAULT '',
	until      INTEGER NOT NULL DEFAULT 0,
	answer     TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS requests_open ON requests (owner, lineage, rule) WHERE state IN ('open', 'granting');
CREATE INDEX IF NOT EXISTS requests_state ON requests (state, at);
CREATE TABLE IF NOT EXISTS leases (
	name  TEXT PRIMARY KEY,
	whose TEXT NOT NULL,
	until INTEGER NOT NULL
);
`),
	// Files of version 1 may have some of these tables: they came without a version of their own.
	all(run(`
CREATE TABLE IF NOT EXISTS askers ( -- of requests
	request TEXT NOT NULL,
	sandbox TEXT NOT NULL,
	born    INTEGER NOT NULL, -- when the sandbox was made
	count   INTEGER NOT NULL,
	held    INTEGER NOT NULL, -- until when its latest connection waits for the answer
	PRIMARY KEY (request, sandbox, born)
);
CREATE TABLE IF NOT EXISTS cuts ( -- sandboxes that a human took the network from
	owner   TEXT NOT NULL,
	sandbox TEXT NOT NULL,
	born    INTEGER NOT NULL,
	by      TEXT NOT NULL,
	at      INTEGER NOT NULL,
	PRIMARY KEY (owner, sandbox, born)
);
CREATE TABLE IF NOT EXISTS owners (name TEXT PRIMARY KEY); -- whose calls came by this ledger
CREATE TABLE IF NOT EXISTS anchors ( -- of the chain of records
	name TEXT PRIMARY KEY, -- first or last
	id   INTEGER NOT NULL,
	hash BLOB NOT NULL,
	at   INTEGER NOT NULL
);
`), addColumn("audit", "hash", "BLOB")),
	run(`
ALTER TABLE requests RENAME COLUMN rule TO subject;
ALTER TABLE requests ADD COLUMN kind TEXT NOT NULL DEFAULT 'domain';
DROP INDEX requests_open;
CREATE UNIQUE INDEX requests_open ON requests (owner, lineage, kind, subject) WHERE state IN ('open', 'granting');
`),
	run(`
CREATE TABLE tokens (
	name    TEXT PRIMARY KEY, -- the owner as whom its holder calls; below that of its parent
	hash    BLOB NOT NULL,    -- SHA-256
	caps    TEXT NOT NULL,    -- policy.Limits, as JSON
	at      INTEGER NOT NULL,
	expires INTEGER NOT NULL DEFAULT 0, -- 0 is never
	revoked INTEGER NOT NULL DEFAULT 0,
	used    INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX tokens_hash ON tokens (hash);
`),
	run(`
CREATE TABLE IF NOT EXISTS reservations ( -- of quotas, by calls under way
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	owner   TEXT NOT NULL,
	takes   TEXT NOT NULL, -- policy.Usage, as JSON
	names   TEXT NOT NULL, -- of sandboxes, as JSON
	pending INTEGER NOT NULL,
	process TEXT NOT NULL,
	until   INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS operations ( -- calls that outlasted their answer
	id      TEXT PRIMARY KEY,
	owner   TEXT NOT NULL,
	tool    TEXT NOT NULL,
	started INTEGER NOT NULL,
	beat    INTEGER NOT NULL, -- when it was heard of last
	ended   INTEGER NOT NULL DEFAULT 0,
	result  TEXT NOT NULL DEFAULT '',
	text    TEXT NOT NULL DEFAULT '',
	cancel  INTEGER NOT NULL DEFAULT 0
);
`),
	all(run(`
CREATE TABLE IF NOT EXISTS clients ( -- of OAuth
	id   TEXT PRIMARY KEY,
	body TEXT NOT NULL, -- Client, as JSON
	at   INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS authorizations ( -- that clients wish for
	id       TEXT PRIMARY KEY,
	body     TEXT NOT NULL, -- Authorization, as JSON
	ends     INTEGER NOT NULL,
	answered INTEGER NOT NULL DEFAULT 0,
	token    TEXT NOT NULL DEFAULT '', -- that was granted, by name
	code     BLOB,                     -- SHA-256, as of all secrets
	used     INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS authorizations_code ON authorizations (code);
CREATE TABLE IF NOT EXISTS sign_ins ( -- of clients that were granted a token
	token   TEXT PRIMARY KEY, -- by name
	client  TEXT NOT NULL,
	scope   TEXT NOT NULL,
	family  BLOB NOT NULL, -- what stays of the refresh token
	refresh BLOB,
	at      INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS sign_ins_family ON sign_ins (family);
CREATE TABLE IF NOT EXISTS access_tokens (
	hash  BLOB PRIMARY KEY,
	token TEXT NOT NULL,
	ends  INTEGER NOT NULL
);
`), addColumn("tokens", "client", "TEXT NOT NULL DEFAULT ''")),
}

// migrate brings a database to the version that this program knows. It writes nothing to one that is there already, and
// refuses a newer one.
func migrate(db *sql.DB) error {
	have, err := version(db)
	if err != nil || have == len(migrations) {
		return err
	}
	if have > len(migrations) {
		return fmt.Errorf("it was written by a newer version of this program (its tables have version %d, this program knows %d): update this one", have, len(migrations))
	}
	tx, err := db.Begin() // which locks the file: of several processes the others find it done
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect once it is committed
	if have, err = version(tx); err != nil {
		return err
	}
	for ; have < len(migrations); have++ {
		if err := migrations[have](tx); err != nil {
			return fmt.Errorf("bring it to version %d: %w", have+1, err)
		}
		if _, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", have+1)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func version(q querier) (v int, err error) {
	err = q.QueryRow("PRAGMA user_version").Scan(&v)
	return v, err
}

func run(text string) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		_, err := tx.Exec(text)
		return err
	}
}

func all(steps ...func(*sql.Tx) error) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		for _, step := range steps {
			if err := step(tx); err != nil {
				return err
			}
		}
		return nil
	}
}

// addColumn adds a column to a table that has none of that name.
func addColumn(table, name, kind string) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		var has bool
		err := tx.QueryRow("SELECT EXISTS (SELECT 1 FROM pragma_table_info(?) WHERE name = ?)", table, name).Scan(&has)
		if err == nil && !has {
			_, err = tx.Exec(fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s %s", table, name, kind))
		}
		return err
	}
}
