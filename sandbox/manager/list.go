package manager

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// Bounds of how many sandboxes one answer has.
const (
	DefaultListLimit = 50
	MaxListLimit     = 200
)

// ListRequest asks for some of an owner's sandboxes. Empty fields ask for all.
type ListRequest struct {
	Name   string            // pattern, with * for any characters
	Labels map[string]string // all of these
	State  sandbox.State
	Limit  int    // 0 means DefaultListLimit
	After  string // name after which to begin: Next of the page before
}

// ListPage is a part of the list.
type ListPage struct {
	Sandboxes []sandbox.Sandbox // by name
	Next      string            // not empty when there are more
}

// List returns the sandboxes of an owner that match a request, by name, and as OWNER/NAME those that others share, or who stand below.
func (m *Manager) List(ctx context.Context, caller Caller, r ListRequest) (ListPage, error) {
	c := m.begin(caller)
	limit := r.Limit
	if limit == 0 {
		limit = DefaultListLimit
	}
	if limit < 1 || limit > MaxListLimit {
		return ListPage{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("limit %d", r.Limit), "is invalid: give 1 to %d", MaxListLimit)
	}
	if _, err := path.Match(r.Name, ""); err != nil {
		return ListPage{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("name %s", sandbox.Quote(r.Name)), "is invalid as a pattern: use letters, digits, dashes, and * for any characters")
	}
	switch r.State {
	case "", sandbox.Creating, sandbox.Running, sandbox.Stopped, sandbox.Paused, sandbox.Broken:
	default:
		return ListPage{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("state %s", sandbox.Quote(string(r.State))), "is invalid: give %s, %s, %s, %s or %s", sandbox.Running, sandbox.Stopped, sandbox.Paused, sandbox.Creating, sandbox.Broken)
	}
	if r.After != "" {
		if err := sandbox.CheckName(r.After[strings.LastIndex(r.After, "/")+1:]); err != nil {
			return ListPage{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("cursor %s", sandbox.Quote(r.After)), "is invalid: give next_cursor of the answer before")
		}
	}
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbListSandboxes, Owner: c.Owner})
	if err != nil {
		return ListPage{}, err
	}
	all, err := b.Tree(ctx, c.Owner, false)
	if err != nil {
		return ListPage{}, err
	}
	for i, s := range all {
		if s.Owner != c.Owner {
			all[i].Name = s.Owner + "/" + s.Name
		}
	}
	for _, other := range c.set.Sharing(c.Owner) {
		theirs, err := b.List(ctx, other)
		if err != nil {
			return ListPage{}, err
		}
		for _, s := range theirs {
			s.Name = other + "/" + s.Name
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b sandbox.Sandbox) int { return strings.Compare(a.Name, b.Name) })
	page := ListPage{Sandboxes: []sandbox.Sandbox{}}
	for _, s := range all {
		switch {
		case s.Name <= r.After || !r.matches(s):
		case len(page.Sandboxes) == limit:
			page.Next = page.Sandboxes[limit-1].Name
			return page, nil
		default:
			page.Sandboxes = append(page.Sandboxes, s)
		}
	}
	return page, nil
}

func (r ListRequest) matches(s sandbox.Sandbox) bool {
	for key, value := range r.Labels {
		if got, ok := s.Labels[key]; !ok || got != value {
			return false
		}
	}
	if r.State != "" && r.State != s.State {
		return false
	}
	matched, _ := path.Match(r.Name, s.Name) // checked before
	return r.Name == "" || matched
}
