package manager

import (
	"context"
	"errors"
	"fmt"

	"pixels/internal/fault"
	"pixels/internal/owner"
	"pixels/policy/ledger"
)

// Asked is a client's wish for a token, which is open still; ledger.ErrAuthorization.
func (h *Human) Asked(id string) (ledger.Authorization, error) { return h.gate.store.Asked(id) }

// Connect grants a client a token: a new one, or one again that a client had, whose sandboxes then are its own. code is for the client.
func (h *Human) Connect(ctx context.Context, id string, t ledger.Token) (a ledger.Authorization, code string, err error) {
	c := h.call()
	if a, err = c.gate.store.Asked(id); err != nil {
		return a, "", err
	}
	if t.Expires.IsZero() {
		return a, "", fault.Errorf(fault.Invalid, fault.Hint{}, "say how long the client may have the token")
	}
	if t.Client = a.ClientName; t.Client == "" {
		t.Client = "a client"
	}
	if owner.Parent(t.Name) != "" {
		return a, "", fault.About(fault.Invalid, fmt.Sprintf("token name %q", t.Name), "is invalid: a client's own is below no other one")
	}
	made := false
	if err = c.gate.store.RenewToken(t); errors.Is(err, ledger.ErrToken) {
		_, err = c.createToken(ctx, t)
		made = err == nil
	}
	if err == nil {
		if code, err = c.gate.store.Answer(id, t.Name); err != nil && made {
			_, e := c.gate.store.RevokeToken(t.Name)
			err = errors.Join(err, e)
		}
	}
	c.connected(t.Name, a, "allow", err)
	return a, code, err
}

// Decline says no to a client.
func (h *Human) Decline(id string) (a ledger.Authorization, err error) {
	c := h.call()
	if a, err = c.gate.store.Asked(id); err == nil {
		_, err = c.gate.store.Answer(id, "")
	}
	c.connected("", a, "deny", err)
	return a, err
}

func (c *call) connected(token string, a ledger.Authorization, verdict string, err error) {
	r := ledger.Record{Kind: ledger.Decided, Owner: c.Owner, Tool: "connect", Target: token, Verdict: verdict, Detail: fmt.Sprintf("%s, which answers to %s", a.ClientName, a.Redirect)}
	if err != nil {
		r.Verdict, r.Detail = "error", err.Error()
	}
	c.record(r)
}
