package tools

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"pixels/internal/fault"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
)

// ending is what becomes of the sandboxes of a token that is ended.
type ending string

const (
	keepThem    ending = "keep"
	destroyThem ending = "destroy"
)

type mintInput struct {
	Name string `json:"name"`
	TTL  string `json:"ttl,omitempty" jsonschema:"as 8h"`
	End  ending `json:"end,omitempty" jsonschema:"end it instead, and keep or destroy its sandboxes"`
	view.Caps
}

type mintOutput struct {
	Name      string   `json:"name"`
	Token     string   `json:"token,omitempty" jsonschema:"shown this once"`
	ExpiresAt string   `json:"expires_at,omitempty"`
	Ended     []string `json:"ended,omitempty"`
	Left      []string `json:"left,omitempty" jsonschema:"sandboxes that are yours now"`
	Destroyed []string `json:"destroyed,omitempty"`
}

var mintToken = define(Tool{
	Verb: policy.VerbMintToken, Title: "Make a token for a worker",
	Description: "Makes a token for a worker that calls this server itself: below yours, bounded by it, and ending with it. Its sandboxes are yours as TOKEN/SANDBOX.",
}, func(ctx context.Context, s Session, in mintInput) (mintOutput, Result, error) {
	if in.End != "" {
		r, err := s.Manager.EndToken(ctx, s.Caller, in.Name, in.End == destroyThem)
		if err != nil {
			return mintOutput{}, Result{}, err
		}
		var failed []error
		for name, err := range r.Failed {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
		out := mintOutput{Name: in.Name, Ended: r.Tokens, Left: r.Left, Destroyed: r.Destroyed}
		return out, Result{Text: fmt.Sprintf("ended: %s; left: %s; destroyed: %s", list(r.Tokens), list(r.Left), list(r.Destroyed))}, errors.Join(failed...)
	}
	limits, err := in.Caps.Limits()
	if err != nil {
		return mintOutput{}, Result{}, fault.Errorf(fault.Invalid, fault.Hint{}, "%v", err)
	}
	var expires time.Time
	if in.TTL != "" {
		d, err := units.ParseDuration(in.TTL)
		if err != nil {
			return mintOutput{}, Result{}, fault.Errorf(fault.Invalid, fault.Hint{}, "ttl: %v", err)
		}
		expires = time.Now().Add(d)
	}
	t, secret, err := s.Manager.MintToken(ctx, s.Caller, in.Name, limits, expires)
	if err != nil {
		return mintOutput{}, Result{}, err
	}
	out := mintOutput{Name: t.Name, Token: secret}
	if !expires.IsZero() {
		out.ExpiresAt = expires.UTC().Format(time.RFC3339)
	}
	return out, Result{Text: fmt.Sprintf("the token of %s: %s", t.Name, secret)}, nil
})

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
