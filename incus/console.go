package incus

import (
	"context"
	"slices"
	"strings"
	"time"

	"pixels/internal/guest"
	"pixels/sandbox"
)

// Sessions implements sandbox.Backend.
func (b *Backend) Sessions(ctx context.Context, id, user string) ([]sandbox.Session, error) {
	k, err := b.execInstance(ctx, id)
	if err != nil {
		return nil, err
	}
	name := k.Config[nameKey]
	argv, _, err := b.order(ctx, &k.Instance, sandbox.Command{User: user, Cwd: "/"}, "sessions")
	if err != nil {
		return nil, b.failed(err, "list sessions of sandbox %s", name)
	}
	var got []guest.Session
	if err := b.answer(ctx, id, argv, saidMost, &got); err != nil {
		return nil, b.failed(err, "list sessions of sandbox %s", name)
	}
	var out []sandbox.Session
	for _, s := range got {
		out = append(out, sandbox.Session{Name: s.Name, Attached: s.Attached, Created: time.Unix(s.Created, 0), Command: s.Command})
	}
	slices.SortFunc(out, func(a, b sandbox.Session) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
