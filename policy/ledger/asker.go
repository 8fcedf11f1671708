package ledger

import (
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pixels/internal/units"
)

// Asker is a sandbox that asked for what a request is for. One that was made later under the same name is another one.
type Asker struct {
	Sandbox string    `json:"sandbox"`
	Born    time.Time `json:"born,omitzero"` // when that sandbox was made
	Count   int       `json:"count"`         // how often it asked
	Held    time.Time `json:"held,omitzero"` // until when its latest connection waits for the answer; the zero time when none ever did
}

// maxAskers bounds those of one request. Of what asks beyond that the request counts the questions alone.
const maxAskers = 100

// Is tells whether an asker is the sandbox that has a name, and was made at a time.
func (a Asker) Is(name string, born time.Time) bool {
	return a.Sandbox == name && (a.Born.IsZero() || a.Born.UnixMilli() == born.UnixMilli())
}

// Names are those of all that asked.
func (r Request) Names() (out []string) {
	for _, a := range r.Asked {
		out = append(out, a.Sandbox)
	}
	return out
}

// joins notes who asks.
func joins(tx *sql.Tx, id string, ask Request) error {
	_, err := tx.Exec(`INSERT INTO askers (request, sandbox, born, count, held) SELECT ?1, ?2, ?3, 1, ?5
		WHERE EXISTS (SELECT 1 FROM askers WHERE request = ?1 AND sandbox = ?2 AND born = ?3) OR (SELECT count(*) FROM askers WHERE request = ?1) < ?4
		ON CONFLICT (request, sandbox, born) DO UPDATE SET count = count + 1, held = max(held, excluded.held)`, id, ask.Sandbox, milliseconds(ask.Born), maxAskers, milliseconds(ask.Held))
	return err
}

func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// readAskers reads what a query has of those who asked.
func (r *Request) readAskers(text string) error {
	var rows []struct {
		Sandbox string
		Born    int64
		Count   int
		Held    int64
	}
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return fmt.Errorf("who asked for %s: %w", r.ID, err)
	}
	for _, row := range rows {
		a := Asker{Sandbox: row.Sandbox, Count: row.Count}
		if row.Born != 0 {
			a.Born = time.UnixMilli(row.Born).UTC()
		}
		if row.Held != 0 {
			a.Held = time.UnixMilli(row.Held).UTC()
			if a.Held.After(r.Held) {
				r.Held = a.Held
			}
		}
		r.Asked = append(r.Asked, a)
	}
	if len(r.Asked) == 0 { // by an older version
		r.Asked = []Asker{{Sandbox: r.Sandbox, Count: r.Count}}
	}
	return nil
}

// ErrChanged means that a request is not what the one who answers it was shown.
var ErrChanged = errors.New("the request has changed since it was shown")

// Digest names all of an open request that an answer decides about, with how long its grant lasts unless the answer says
// otherwise. An answer brings it along.
func (r Request) Digest(usual time.Duration) string {
	asked := []string{}
	for _, a := range r.Asked {
		asked = append(asked, fmt.Sprint(a.Sandbox, " ", milliseconds(a.Born)))
	}
	slices.Sort(asked)
	b, _ := json.Marshal([]any{r.ID, r.Owner, r.Lineage, r.Sandbox, r.Subject, r.Reason, r.Process, r.Source, r.Wanted, asked, usual}) // it can be written
	sum := sha256.Sum256(b)
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:12])
}

// Handle is what a list shows for an ID, and what a command to answer takes: the ID, and the digest of what is shown.
func (r Request) Handle(usual time.Duration) string { return r.ID + "-" + r.Digest(usual) }

// ParseHandle divides a handle. An ID alone has no digest.
func ParseHandle(handle string) (id, digest string) {
	if parts := strings.SplitN(handle, "-", 3); len(parts) == 3 && parts[0] == "req" {
		return parts[0] + "-" + parts[1], parts[2]
	}
	return handle, ""
}

// changed is the error of an answer to what was shown earlier.
func (r Request) changed(usual time.Duration) error {
	return fmt.Errorf("%w: %s is for %s, asked by %s, for %s; look at it, and answer %s", ErrChanged, r.ID, r.Subject, strings.Join(r.Names(), ", "), units.Duration(usual), r.Handle(usual))
}
