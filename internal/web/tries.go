package web

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"pixels/policy/approver"
)

// How many wrong proofs of one browser, or one address, cost no time; the longest that a further one waits; and how long
// they are remembered.
const (
	freeTries   = 3
	longestWait = 4 * time.Second
	triesFor    = 10 * time.Minute
	mostKeys    = 10_000
)

// tries counts wrong tokens and passphrases, by session and by the address that they come from. Who was wrong waits: nobody
// is refused, for then a stranger's wrong ones would keep the human out.
type tries struct {
	mu    sync.Mutex
	wrong map[any]*tried
}

type tried struct {
	n    int
	last time.Time
}

// check is how each proof is checked that somebody could guess. One session's are checked one after another. mine is nil
// for who is not signed in.
func (t *tries) check(r *http.Request, mine *session, proof func() error) error {
	keys := []any{peer(r)}
	if mine != nil {
		select {
		case mine.trying <- struct{}{}:
			defer func() { <-mine.trying }()
		case <-r.Context().Done():
			return r.Context().Err()
		}
		keys = append(keys, mine)
	}
	if err := wait(r.Context(), t.delay(keys)); err != nil {
		return err
	}
	err := proof()
	if errors.Is(err, approver.ErrProof) {
		t.count(keys)
	}
	return err
}

// peer is the address that a call comes from.
func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// delay is how long the next proof waits.
func (t *tries) delay(keys []any) (d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		if w := t.wrong[k]; w != nil && time.Since(w.last) < triesFor && w.n >= freeTries {
			d = max(d, min(250*time.Millisecond<<min(w.n-freeTries, 10), longestWait))
		}
	}
	return d
}

func (t *tries) count(keys []any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wrong == nil || len(t.wrong) > mostKeys {
		t.wrong = map[any]*tried{}
	}
	for k, w := range t.wrong {
		if time.Since(w.last) > triesFor {
			delete(t.wrong, k)
		}
	}
	for _, k := range keys {
		if t.wrong[k] == nil {
			t.wrong[k] = &tried{}
		}
		t.wrong[k].n++
		t.wrong[k].last = time.Now()
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
