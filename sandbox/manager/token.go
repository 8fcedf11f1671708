package manager

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strings"
	"time"

	"pixels/internal/fault"
	"pixels/internal/owner"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// TokenUse is a token, and what its holder has at the moment.
type TokenUse struct {
	ledger.Token
	Live      bool // it has not ended, nor has one above it
	Sandboxes int  // of its own
	Requests  int  // open ones
}

// Tokens are all of them by name, each followed by those below it.
func (h *Human) Tokens(ctx context.Context) ([]TokenUse, error) {
	c := h.call()
	all, err := c.gate.store.Tokens()
	if err != nil {
		return nil, err
	}
	out := make([]TokenUse, len(all))
	ended := map[string]bool{}
	for i, t := range all {
		boxes, err := c.read.List(ctx, t.Name)
		if err != nil {
			return nil, err
		}
		open, err := c.gate.store.Requests(t.Name, 0, ledger.RequestOpen)
		if err != nil {
			return nil, err
		}
		ended[t.Name] = t.Over(time.Now()) || ended[owner.Parent(t.Name)]
		out[i] = TokenUse{t, !ended[t.Name], len(boxes), len(open)}
	}
	return out, nil
}

// CreateToken makes a token, and returns its secret, which is kept nowhere.
func (h *Human) CreateToken(ctx context.Context, t ledger.Token) (secret string, err error) {
	return h.call().createToken(ctx, t)
}

func (c *call) createToken(ctx context.Context, t ledger.Token) (secret string, err error) {
	secret, err = c.gate.store.CreateToken(t, func(name string) error { return c.nothingLeft(ctx, name) })
	r := ledger.Record{Kind: ledger.Decided, Owner: c.Owner, Tool: "mint_token", Target: t.Name, Verdict: "allow"}
	if err != nil {
		r.Verdict, r.Detail = "error", err.Error()
	}
	c.record(r)
	return secret, err
}

// MintToken makes a token below the caller's own, which must have one: below it, and bounded by it. name is its last part.
func (m *Manager) MintToken(ctx context.Context, caller Caller, name string, l policy.Limits, expires time.Time) (t ledger.Token, secret string, err error) {
	c := m.begin(caller)
	t = ledger.Token{Limits: l, Expires: expires}
	if t.Name, err = c.below(ctx, name); err != nil {
		return t, "", err
	}
	secret, err = c.createToken(ctx, t)
	return t, secret, err
}

// EndToken ends a token below the caller's own, as RevokeToken does.
func (m *Manager) EndToken(ctx context.Context, caller Caller, name string, destroy bool) (Revoked, error) {
	c := m.begin(caller)
	full, err := c.below(ctx, name)
	if err != nil {
		return Revoked{}, err
	}
	return c.revokeToken(ctx, full, destroy)
}

// below is the whole name of a token below the caller's, who may have one.
func (c *call) below(ctx context.Context, name string) (full string, err error) {
	if c.Caller.Caps == nil {
		return "", fault.Errorf(fault.Denied, fault.Hint{}, "only who calls by a token can make tokens below it")
	}
	if strings.Contains(name, "/") || name == "" {
		return "", fault.About(fault.Invalid, fmt.Sprintf("name %s", sandbox.Quote(name)), "is invalid: give the last part alone, in lower-case letters, digits and dashes; it goes below %s", c.Owner)
	}
	_, err = c.vet(ctx, policy.Call{Verb: policy.VerbMintToken, Owner: c.Owner})
	return c.Owner + "/" + name, err
}

// nothingLeft checks that a name is free for a token: no user of this machine has it, and nothing is left of who had it before.
func (c *call) nothingLeft(ctx context.Context, name string) error {
	taken := func(by, instead string) error {
		return fault.About(fault.Exists, fmt.Sprintf("token name %q", name), "is taken: %s; %s", by, instead)
	}
	if _, err := user.Lookup(name); err == nil {
		return taken("a user of this machine has it", "choose another one")
	}
	boxes, err := c.read.Tree(ctx, name, true)
	if err != nil {
		return err
	}
	if len(boxes) > 0 {
		var names []string
		for _, s := range boxes {
			names = append(names, s.Owner+"/"+s.Name)
		}
		slices.Sort(names)
		return taken("there are sandboxes of that owner ("+strings.Join(names[:min(len(names), 5)], ", ")+")", "destroy them, or choose another name")
	}
	open, err := c.gate.store.Requests(name, 1, ledger.RequestOpen)
	if err == nil && len(open) > 0 {
		err = taken("there are open requests of that owner", "answer them, or choose another name")
	}
	return err
}

// Revoked is what became of a token and of those below it.
type Revoked struct {
	Tokens    []string         // ended now
	Destroyed []string         // sandboxes, as OWNER/NAME
	Left      []string         // sandboxes that stay, as OWNER/NAME: the holder of a token above has them
	Failed    map[string]error // sandboxes that could not be destroyed
}

// RevokeToken ends a token, and those below it, for good. destroy destroys their sandboxes.
func (h *Human) RevokeToken(ctx context.Context, name string, destroy bool) (Revoked, error) {
	return h.call().revokeToken(ctx, name, destroy)
}

func (c *call) revokeToken(ctx context.Context, name string, destroy bool) (r Revoked, err error) {
	r.Failed = map[string]error{}
	r.Tokens, err = c.gate.store.RevokeToken(name)
	if errors.Is(err, ledger.ErrToken) {
		return r, fault.About(fault.NotFound, fmt.Sprintf("token %q", name), "is not there")
	}
	record := ledger.Record{Kind: ledger.Decided, Owner: c.Owner, Tool: "revoke_token", Target: strings.Join(r.Tokens, " "), Verdict: "allow"}
	if err != nil {
		record.Verdict, record.Detail = "error", err.Error()
	}
	c.record(record)
	if err != nil {
		return r, err
	}
	ctx = context.WithoutCancel(ctx) // it is revoked: what comes with that comes
	boxes, err := c.read.Tree(ctx, name, true)
	if err != nil {
		return r, err
	}
	errs := make([]error, len(boxes))
	if destroy {
		b := c.unvetted()
		sideBySide(len(boxes), parallel, func(i int) {
			errs[i] = b.on(ctx, boxes[i], func(id string) error { return b.Destroy(ctx, id) })
		})
	}
	owners := map[string]bool{}
	for i, s := range boxes {
		owners[s.Owner] = true
		switch full := s.Owner + "/" + s.Name; {
		case !destroy:
			r.Left = append(r.Left, full)
		case errs[i] == nil || errors.Is(errs[i], sandbox.ErrNotFound):
			r.Destroyed = append(r.Destroyed, full)
		default:
			r.Failed[full] = errs[i]
		}
	}
	for name := range owners {
		_ = c.withdraw(ctx, name) // a request that stays open is found to be of nobody when it is approved
	}
	slices.Sort(r.Left)
	slices.Sort(r.Destroyed)
	return r, nil
}

// above tells whether a caller stands above an owner: they have what is an owner's below them.
func above(caller, of string) bool { return caller != "" && owner.Under(of, caller) }

// CapsOf are those of a token by name; ledger.ErrToken where it has ended.
func (m *Manager) CapsOf(name string) (*policy.Caps, error) { return m.gate.store.Caps(name) }

// Authenticate tells whose the secret of a token is, as the ledger does.
func (m *Manager) Authenticate(secret string) (caps *policy.Caps, key string, err error) {
	return m.gate.store.Authenticate(secret)
}

// Changes returns what gives a channel that is closed at the next change of the ledger, as the end of a token is one. done must be
// called at the end.
func (m *Manager) Changes() (next func() <-chan struct{}, done func()) { return m.gate.store.Changes() }

// Offers tells whether a caller may call a tool at all.
func (m *Manager) Offers(c Caller, v policy.Verb) bool {
	return c.Caps.Offers(v) && (v != policy.VerbMintToken || c.Caps != nil) && m.gate.policy.Now().For(c.Owner).Offers(v)
}

// TokensVersion is another one whenever a token was made or revoked.
func (m *Manager) TokensVersion() (string, error) { return m.gate.store.TokensVersion() }
