package ledger

import (
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"pixels/internal/fault"
)

// Client is a program that asks humans for tokens (OAuth). It has registered itself, or is described by a document at its ID, a URL.
type Client struct {
	ID        string    `json:"-"`
	Name      string    `json:"name"` // its own words
	Redirects []string  `json:"redirects"`
	At        time.Time `json:"-"` // when it registered, or its document was read
}

// Authorization is a client's wish for a token, which a human grants or denies.
type Authorization struct {
	ID         string `json:"-"`
	Client     string `json:"client"` // its ID
	ClientName string `json:"client_name"`
	Redirect   string `json:"redirect"` // where the browser goes with the answer
	State      string `json:"state"`    // given back with it
	Challenge  string `json:"challenge"`
	Issuer     string `json:"issuer"` // the server that was asked
	Scope      string `json:"scope"`

	Ends  time.Time `json:"-"`
	Token string    `json:"-"` // by name, once one was granted
}

// SignedIn are the secrets of a client that a human granted a token.
type SignedIn struct {
	Token           string // by name
	Access, Refresh string
	AccessEnds      time.Time
}

var (
	// ErrClient means that a client is not known, or was forgotten since nobody granted it a token.
	ErrClient = errors.New("there is no such client: it registers first")
	// ErrAuthorization means that a wish is not there, was answered, or is over.
	ErrAuthorization = errors.New("there is no such wish for a token, or it is over: begin again in the client")
	// ErrReused means that what serves once was used again, and maybe was stolen: the client has been signed out.
	ErrReused = errors.New("that was used already: the client has been signed out, and must ask again")
)

const (
	refreshPrefix      = "pixelsr_"
	maxClients         = 500 // then those are forgotten who have no token, after clientLife
	clientLife         = 24 * time.Hour
	maxAuthorizations  = 200
	authorizationLife  = 10 * time.Minute
	codeLife           = time.Minute
	authorizationsKept = time.Hour // after their end: a code that is used again is known so long
	accessLife         = time.Hour
)

// random is a secret, or an ID that can't be guessed.
func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// KeepClient keeps a client, in place of what was known by its ID.
func (s *Store) KeepClient(c Client) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.tx(func(tx *sql.Tx) error {
		now := s.now()
		if _, err := tx.Exec("DELETE FROM clients WHERE at < ? AND id NOT IN (SELECT client FROM sign_ins)", now.Add(-clientLife).UnixMilli()); err != nil {
			return err
		}
		var count int
		if err := tx.QueryRow("SELECT count(*) FROM clients WHERE id != ?", c.ID).Scan(&count); err != nil {
			return err
		}
		if count >= maxClients {
			return fault.Errorf(fault.Denied, fault.Hint{}, "%d clients have registered: those whom nobody granted a token are forgotten within a day", count)
		}
		_, err := tx.Exec("INSERT OR REPLACE INTO clients (id, body, at) VALUES (?, ?, ?)", c.ID, string(body), now.UnixMilli())
		return err
	})
}

// Client is one by its ID; ErrClient.
func (s *Store) Client(id string) (c Client, err error) {
	err = s.with(func(db *sql.DB) error {
		var body string
		var at int64
		err := db.QueryRow("SELECT body, at FROM clients WHERE id = ?", id).Scan(&body, &at)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrClient
		}
		if err == nil {
			err = json.Unmarshal([]byte(body), &c)
		}
		c.ID, c.At = id, moment(at)
		return err
	})
	return c, err
}

// Ask keeps a wish, for the page to show, and returns its ID.
func (s *Store) Ask(a Authorization) (id string, err error) {
	body, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	id = random(16)
	err = s.tx(func(tx *sql.Tx) error {
		now := s.now()
		if _, err := tx.Exec("DELETE FROM authorizations WHERE ends < ?", now.Add(-authorizationsKept).UnixMilli()); err != nil {
			return err
		}
		var count int
		if err := tx.QueryRow("SELECT count(*) FROM authorizations WHERE ends > ? AND answered = 0", now.UnixMilli()).Scan(&count); err != nil {
			return err
		}
		if count >= maxAuthorizations {
			return fault.Errorf(fault.Denied, fault.Hint{}, "too many clients ask for a token at the moment: try again in %v", authorizationLife)
		}
		_, err := tx.Exec("INSERT INTO authorizations (id, body, ends) VALUES (?, ?, ?)", id, string(body), now.Add(authorizationLife).UnixMilli())
		return err
	})
	return id, err
}

// Asked is a wish that is open still; ErrAuthorization.
func (s *Store) Asked(id string) (a Authorization, err error) {
	err = s.with(func(db *sql.DB) error {
		a, err = s.authorization(db, "id = ? AND answered = 0", id)
		return err
	})
	return a, err
}

// Answer answers a wish: with a token, for which the client has the code that is returned, or without one.
func (s *Store) Answer(id, token string) (code string, err error) {
	err = s.tx(func(tx *sql.Tx) error {
		if _, err := s.authorization(tx, "id = ? AND answered = 0", id); err != nil {
			return err
		}
		code = random(32)
		_, err := tx.Exec("UPDATE authorizations SET answered = 1, token = ?, code = ?, ends = ? WHERE id = ?", token, hashed(code), s.now().Add(codeLife).UnixMilli(), id)
		return err
	})
	if err != nil || token == "" {
		code = ""
	}
	return code, err
}

// ByCode is the wish that a code answers, used or not; ErrAuthorization.
func (s *Store) ByCode(code string) (a Authorization, err error) {
	err = s.with(func(db *sql.DB) error {
		a, err = s.authorization(db, "code = ? AND token != ''", hashed(code))
		return err
	})
	return a, err
}

func (s *Store) authorization(q querier, where string, arg any) (a Authorization, err error) {
	var body string
	var ends int64
	err = q.QueryRow("SELECT id, body, ends, token FROM authorizations WHERE ends > ? AND "+where, s.now().UnixMilli(), arg).Scan(&a.ID, &body, &ends, &a.Token)
	if errors.Is(err, sql.ErrNoRows) {
		return Authorization{}, ErrAuthorization
	}
	if err == nil {
		err = json.Unmarshal([]byte(body), &a)
	}
	a.Ends = moment(ends)
	return a, err
}

// Redeem gives a client its secrets for a code, in place of those that it had by the same token. Who comes with a code again ends them:
// ErrReused.
func (s *Store) Redeem(code string) (in SignedIn, err error) {
	reused := false
	err = s.tx(func(tx *sql.Tx) error {
		in, reused = SignedIn{}, false
		a, err := s.authorization(tx, "code = ? AND token != ''", hashed(code))
		if err != nil {
			return err
		}
		var used int
		if err := tx.QueryRow("SELECT used FROM authorizations WHERE id = ?", a.ID).Scan(&used); err != nil {
			return err
		}
		if reused = used != 0; reused {
			return s.signOut(tx, a.Token)
		}
		if _, err := s.capsOf(tx, a.Token); err != nil {
			return err
		}
		if err := s.signOut(tx, a.Token); err != nil {
			return err
		}
		// Until the code would have ended: one who comes with it again is known by it.
		if _, err := tx.Exec("UPDATE authorizations SET used = 1, ends = ? WHERE id = ?", s.now().Add(authorizationsKept).UnixMilli(), a.ID); err != nil {
			return err
		}
		family := random(16)
		if _, err := tx.Exec("INSERT INTO sign_ins (token, client, scope, family) VALUES (?, ?, ?, ?)", a.Token, a.Client, a.Scope, hashed(family)); err != nil {
			return err
		}
		in, err = s.issue(tx, a.Token, family)
		return err
	})
	if err == nil && reused {
		err = ErrReused
	}
	return in, err
}

// issue makes new secrets. The access tokens from before end by themselves.
func (s *Store) issue(tx *sql.Tx, token, family string) (in SignedIn, err error) {
	now := s.now()
	in = SignedIn{Token: token, Access: secretPrefix + random(32), Refresh: refreshPrefix + family + "." + random(32), AccessEnds: now.Add(accessLife)}
	for _, do := range []struct {
		statement string
		args      []any
	}{
		{"UPDATE sign_ins SET refresh = ?, at = ? WHERE token = ?", []any{hashed(in.Refresh), now.UnixMilli(), token}},
		{"DELETE FROM access_tokens WHERE ends < ?", []any{now.UnixMilli()}},
		{"INSERT INTO access_tokens (hash, token, ends) VALUES (?, ?, ?)", []any{hashed(in.Access), token, in.AccessEnds.UnixMilli()}},
	} {
		if _, err := tx.Exec(do.statement, do.args...); err != nil {
			return SignedIn{}, err
		}
	}
	return in, nil
}

// familyOf is the part of a refresh token that stays when it is renewed.
func familyOf(refresh string) string {
	family, _, _ := strings.Cut(strings.TrimPrefix(refresh, refreshPrefix), ".")
	return family
}

// ByRefresh tells whose a refresh token is, or was: the client, and the scope that it has; ErrToken.
func (s *Store) ByRefresh(refresh string) (client, scope string, err error) {
	err = s.with(func(db *sql.DB) error {
		err := db.QueryRow("SELECT client, scope FROM sign_ins WHERE family = ?", hashed(familyOf(refresh))).Scan(&client, &scope)
		if errors.Is(err, sql.ErrNoRows) {
			err = ErrToken
		}
		return err
	})
	return client, scope, err
}

// Refresh gives new secrets for a refresh token, which then has served. Who comes with one again ends all of them: ErrReused.
func (s *Store) Refresh(refresh string) (in SignedIn, err error) {
	reused := false
	err = s.tx(func(tx *sql.Tx) error {
		in, reused = SignedIn{}, false
		var token string
		var now []byte
		err := tx.QueryRow("SELECT token, refresh FROM sign_ins WHERE family = ?", hashed(familyOf(refresh))).Scan(&token, &now)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrToken
		}
		if err != nil {
			return err
		}
		if reused = !slices.Equal(now, hashed(refresh)); reused {
			return s.signOut(tx, token)
		}
		if _, err := s.capsOf(tx, token); err != nil {
			return err
		}
		in, err = s.issue(tx, token, familyOf(refresh))
		return err
	})
	if err == nil && reused {
		err = ErrReused
	}
	return in, err
}

// SignOut ends the secrets of the client that one of them is of. What is nobody's, or another client's, ends nothing.
func (s *Store) SignOut(secret, client string) error {
	return s.tx(func(tx *sql.Tx) error {
		var token string
		err := tx.QueryRow("SELECT token FROM sign_ins WHERE client = ?1 AND (family = ?2 OR token IN (SELECT token FROM access_tokens WHERE hash = ?3))",
			client, hashed(familyOf(secret)), hashed(secret)).Scan(&token)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return s.signOut(tx, token)
	})
}

// signOut ends the secrets of the client that has a token, and the tokens below that: who stole a secret may have made some. No client has
// one of those.
func (s *Store) signOut(tx *sql.Tx, token string) error {
	for _, do := range []struct {
		statement string
		args      []any
	}{
		{"DELETE FROM access_tokens WHERE token = ?", []any{token}},
		{"DELETE FROM sign_ins WHERE token = ?", []any{token}},
		{"UPDATE tokens SET revoked = ?2 WHERE " + belowIt + " AND revoked = 0", []any{token, s.now().UnixMilli()}},
	} {
		if _, err := tx.Exec(do.statement, do.args...); err != nil {
			return err
		}
	}
	return nil
}

// accessed is the name of the token that an access token is for, and what stays the same when it is renewed; ErrToken.
func (s *Store) accessed(q querier, secret string) (token, key string, err error) {
	var family []byte
	err = q.QueryRow("SELECT a.token, i.family FROM access_tokens a JOIN sign_ins i ON i.token = a.token WHERE a.hash = ? AND a.ends > ?", hashed(secret), s.now().UnixMilli()).Scan(&token, &family)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrToken
	}
	return token, string(family), err
}
