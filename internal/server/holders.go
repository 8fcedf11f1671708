package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"pixels/policy"
	"pixels/policy/ledger"
)

// Tokens tell whose a secret is.
type Tokens interface {
	// Authenticate returns the caps of a token, whose Holder is the owner as whom its calls are made; ledger.ErrToken. key stays the
	// same when its secrets are renewed.
	Authenticate(secret string) (caps *policy.Caps, key string, err error)
	// Changes returns what gives a channel that is closed when tokens may have ended. done must be called at the end.
	Changes() (next func() <-chan struct{}, done func())
	// TokensVersion is another one whenever a token was made or revoked.
	TokensVersion() (string, error)
}

// lookEvery is how often it is looked whether tokens that are in use have expired.
const lookEvery = 2 * time.Second

// lookApart is the least time between two looks: what is written to the ledger is mostly something else.
const lookApart = 50 * time.Millisecond

// key stands for a token. A name does not: it may be another token's later.
type key [sha256.Size]byte

// holders are who calls by tokens at the moment. What they do ends with their token.
type holders struct {
	tokens Tokens

	mu    sync.Mutex
	lives map[key]*life // by their secrets
}

// life is a token in use.
type life struct {
	secret string
	uses   int
	over   context.Context
	end    context.CancelFunc
}

func newHolders(t Tokens) *holders { return &holders{tokens: t, lives: map[key]*life{}} }

// begin begins a use of a token. over ends with the token; done must be called at the end of the use.
func (h *holders) begin(secret string) (caps *policy.Caps, k key, over context.Context, done func(), err error) {
	own := keyOf(secret)
	h.mu.Lock()
	l := h.lives[own]
	if l == nil {
		l = &life{secret: secret}
		l.over, l.end = context.WithCancel(context.Background())
		h.lives[own] = l
	}
	l.uses++
	h.mu.Unlock()
	done = sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if l.uses--; l.uses == 0 {
			l.end()
			delete(h.lives, own)
		}
	})
	// Looked up once it is known to be in use: else it could end between the two.
	caps, stays, err := h.tokens.Authenticate(secret)
	if err != nil {
		done()
		return nil, k, nil, nil, err
	}
	copy(k[:], stays) // a SHA-256, too
	return caps, k, l.over, done, nil
}

func (h *holders) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.lives)
}

// hold uses a token on, whose use goes on: that of one that has ended is over.
func (h *holders) hold(secret string) (over context.Context, done func()) {
	_, _, over, done, err := h.begin(secret)
	if err != nil {
		over, end := context.WithCancel(context.Background())
		end()
		return over, func() {}
	}
	return over, done
}

// watch ends what is done by tokens that end, until ctx ends.
func (h *holders) watch(ctx context.Context) {
	next, done := h.tokens.Changes()
	defer done()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := ""
	for expired := true; ; {
		changed := next()
		// Most changes are none of tokens: those in use are looked up where some are, or may have expired.
		if now, err := h.tokens.TokensVersion(); expired || err != nil || now != last {
			last = now
			h.look()
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			expired = false
		case <-tick.C:
			expired = true
		}
		time.Sleep(lookApart)
	}
}

func (h *holders) look() {
	h.mu.Lock()
	var all []*life
	for _, l := range h.lives {
		all = append(all, l)
	}
	h.mu.Unlock()
	for _, l := range all {
		if _, _, err := h.tokens.Authenticate(l.secret); errors.Is(err, ledger.ErrToken) {
			l.end()
		}
	}
}

func keyOf(secret string) key { return sha256.Sum256([]byte(secret)) }
