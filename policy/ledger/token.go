package ledger

import (
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"pixels/internal/fault"
	"pixels/internal/owner"
	"pixels/policy"
)

// Token lets its holder call by a network. What is known of it does not serve to use it: its secret is shown once, when it is made.
type Token struct {
	Name    string // the owner as whom its holder calls
	Client  string // that a human granted it to, in its own words; empty where a human or a token above made it
	Limits  policy.Limits
	At      time.Time // when it was made
	Expires time.Time // zero is never
	Revoked time.Time // zero where it was not; that of a token above it counts, too
	Used    time.Time // last, to within usedEvery; zero is never
}

// Over tells whether a token has ended by itself, whatever became of those above it.
func (t Token) Over(now time.Time) bool {
	return !t.Revoked.IsZero() || !t.Expires.IsZero() && !now.Before(t.Expires)
}

// ErrToken means that a secret is that of no token, or of one that has ended.
var ErrToken = errors.New("there is no such token, or it has ended")

const (
	// secretPrefix tells people, and programs that look for secrets in texts, what they have before them.
	secretPrefix = "pixels_"
	maxTokens    = 10_000
	maxDepth     = 8 // of tokens below tokens
	usedEvery    = time.Minute
)

// tokenName has one part for each token from the top.
var tokenName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}(/[a-z0-9][a-z0-9-]{0,30})*$`)

func hashed(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// CreateToken makes a token, and returns its secret, which is kept nowhere. A name below another token's makes one that never has
// more than that, and ends with it. The name of a token that was revoked may be had again where free says that nothing is left of it.
func (s *Store) CreateToken(t Token, free func(name string) error) (secret string, err error) {
	if !tokenName.MatchString(t.Name) || strings.Count(t.Name, "/") >= maxDepth {
		return "", fault.About(fault.Invalid, fmt.Sprintf("token name %q", t.Name), "is invalid: use lower-case letters, digits and dashes, up to 31, and PARENT/NAME for one below another token's, up to %d deep", maxDepth)
	}
	if !t.Expires.IsZero() && !t.Expires.After(s.now()) {
		return "", fault.About(fault.Invalid, "the end of the token", "is over already: give a time to come")
	}
	limits, err := json.Marshal(t.Limits)
	if err != nil {
		return "", err
	}
	secret = secretPrefix + random(32)
	live := func(q querier) error {
		was, err := one(q, "name = ?", t.Name)
		switch {
		case errors.Is(err, ErrToken):
			return nil
		case err == nil && was.Revoked.IsZero():
			return fault.About(fault.Exists, fmt.Sprintf("token %q", t.Name), "is there already: revoke it, or choose another name")
		}
		return err
	}
	if err := s.with(func(db *sql.DB) error { return live(db) }); err != nil {
		return "", err
	}
	if err := free(t.Name); err != nil { // which may take long, and so must hold up nobody who writes here
		return "", err
	}
	err = s.tx(func(tx *sql.Tx) error {
		if above := owner.Parent(t.Name); above != "" {
			parent, err := s.capsOf(tx, above)
			if errors.Is(err, ErrToken) {
				return fault.About(fault.NotFound, fmt.Sprintf("token %q", above), "is not there, or has ended: a token below it can't be made")
			}
			if err != nil {
				return err
			}
			if err := parent.Narrower(t.Limits); err != nil {
				return fault.About(fault.Invalid, "a cap", "is invalid: %v", err)
			}
		}
		if err := live(tx); err != nil {
			return err
		}
		var count int
		if err := tx.QueryRow("SELECT count(*) FROM tokens WHERE revoked = 0").Scan(&count); err != nil {
			return err
		}
		if count >= maxTokens {
			return fault.Errorf(fault.Denied, fault.Hint{}, "there are %d tokens already: revoke some", count)
		}
		if err := s.signOut(tx, t.Name); err != nil { // who had the name before
			return err
		}
		_, err := tx.Exec("INSERT OR REPLACE INTO tokens (name, hash, caps, at, expires, client) VALUES (?, ?, ?, ?, ?, ?)", t.Name, hashed(secret), string(limits), s.now().UnixMilli(), milliseconds(t.Expires), t.Client)
		return err
	})
	return secret, err
}

// RenewToken gives a token that a client has other bounds and another end, also one that has expired. The client that has it is signed
// out: what is granted now is for who asked now. ErrToken where there is none that a client has.
func (s *Store) RenewToken(t Token) error {
	limits, err := json.Marshal(t.Limits)
	if err != nil {
		return err
	}
	return s.tx(func(tx *sql.Tx) error {
		done, err := tx.Exec("UPDATE tokens SET caps = ?, expires = ?, client = ? WHERE name = ? AND client != '' AND revoked = 0", string(limits), milliseconds(t.Expires), t.Client, t.Name)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrToken
		}
		return s.signOut(tx, t.Name)
	})
}

// belowIt is true of the tokens below that of the name ?1.
const belowIt = "substr(name, 1, length(?1) + 1) = ?1 || '/'"

// RevokeToken ends a token, and those below it, for good. It returns their names; ErrToken where it is not there, none where it was
// revoked already.
func (s *Store) RevokeToken(name string) (ended []string, err error) {
	err = s.tx(func(tx *sql.Tx) error {
		ended = nil
		if _, err := one(tx, "name = ?", name); err != nil {
			return err
		}
		all, err := list(tx, "(name = ?1 OR "+belowIt+") AND revoked = 0", name)
		if err != nil {
			return err
		}
		for _, t := range all {
			ended = append(ended, t.Name)
		}
		if _, err := tx.Exec("UPDATE tokens SET revoked = ? WHERE name = ? AND revoked = 0", s.now().UnixMilli(), name); err != nil {
			return err
		}
		return s.signOut(tx, name)
	})
	return ended, err
}

// Tokens are all of them by name, so that each is followed by those below it.
func (s *Store) Tokens() (out []Token, err error) {
	err = s.with(func(db *sql.DB) error {
		out, err = list(db, "true")
		return err
	})
	return out, err
}

// Authenticate tells whose a secret is: the caps of its token, whose Holder is the owner as whom the calls are made; ErrToken. key stays
// the same while a client has the token, also when its secrets are renewed, and is that of no other one.
func (s *Store) Authenticate(secret string) (caps *policy.Caps, key string, err error) {
	if !strings.HasPrefix(secret, secretPrefix) {
		return nil, "", ErrToken
	}
	err = s.with(func(db *sql.DB) error {
		key = string(hashed(secret))
		t, err := one(db, "hash = ?", hashed(secret))
		if errors.Is(err, ErrToken) {
			var name string
			if name, key, err = s.accessed(db, secret); err == nil {
				t, err = one(db, "name = ?", name)
			}
		}
		if err != nil {
			return err
		}
		if caps, err = s.capsOf(db, t.Name); err != nil {
			return err
		}
		if now := s.now(); now.Sub(t.Used) >= usedEvery {
			_, err = db.Exec("UPDATE tokens SET used = ? WHERE name = ?", now.UnixMilli(), t.Name)
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return caps, key, nil
}

// TokensVersion is another one whenever a token was made or revoked, or a client signed in or out.
func (s *Store) TokensVersion() (version string, err error) {
	err = s.with(func(db *sql.DB) error {
		return db.QueryRow("SELECT count(*) || ' ' || ifnull(sum(at), 0) || ' ' || ifnull(sum(revoked), 0) || (SELECT ' ' || count(*) || ' ' || ifnull(sum(at), 0) FROM sign_ins) FROM tokens").Scan(&version)
	})
	return version, err
}

// Caps are those of a token by name; ErrToken where it has ended.
func (s *Store) Caps(name string) (caps *policy.Caps, err error) {
	err = s.with(func(db *sql.DB) error {
		caps, err = s.capsOf(db, name)
		return err
	})
	return caps, err
}

// capsOf are the caps of a token that has not ended, with those of all above it, none of which may have ended.
func (s *Store) capsOf(q querier, name string) (caps *policy.Caps, err error) {
	for _, name := range owner.Lineage(name) {
		t, err := one(q, "name = ?", name)
		if err != nil {
			return nil, err
		}
		if t.Over(s.now()) {
			return nil, ErrToken
		}
		caps = &policy.Caps{Holder: name, Limits: t.Limits, Parent: caps}
	}
	return caps, nil
}

func one(q querier, where string, args ...any) (Token, error) {
	found, err := list(q, where, args...)
	if err == nil && len(found) == 0 {
		err = ErrToken
	}
	if err != nil {
		return Token{}, err
	}
	return found[0], nil
}

func list(q querier, where string, args ...any) (out []Token, err error) {
	rows, err := q.Query("SELECT name, caps, at, expires, revoked, used, client FROM tokens WHERE "+where+" ORDER BY replace(name, '/', char(1))", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t Token
		var limits string
		var at, expires, revoked, used int64
		if err := rows.Scan(&t.Name, &limits, &at, &expires, &revoked, &used, &t.Client); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(limits), &t.Limits); err != nil {
			return nil, fmt.Errorf("the caps of the token %s: %w", t.Name, err)
		}
		t.At, t.Expires, t.Revoked, t.Used = moment(at), moment(expires), moment(revoked), moment(used)
		out = append(out, t)
	}
	return out, rows.Err()
}
