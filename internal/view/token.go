package view

import (
	"fmt"
	"strings"
	"time"

	"pixels/internal/owner"
	"pixels/internal/units"
	"pixels/policy"
	"pixels/sandbox/manager"
)

// Caps are the limits of a token as people write and read them. What is absent is not bounded; an empty list allows nothing.
type Caps struct {
	Sandboxes   *int64    `json:"sandboxes,omitempty"`
	Checkpoints *int64    `json:"checkpoints,omitempty"`
	CPU         *int64    `json:"cpu,omitempty"`
	Memory      string    `json:"memory,omitempty" jsonschema:"as 4GiB"`
	Disk        string    `json:"disk,omitempty"`
	MaxLease    string    `json:"max_lease,omitempty"`
	Egress      *[]string `json:"egress,omitempty" jsonschema:"modes"`
	Domains     *[]string `json:"domains,omitempty"`
	Tools       *[]string `json:"tools,omitempty"`
}

// CapsOf shows limits.
func CapsOf(l policy.Limits) Caps {
	c := Caps{Sandboxes: l.Sandboxes, Checkpoints: l.Checkpoints, CPU: l.CPU, Egress: texts(l.Modes), Domains: texts(l.Domains), Tools: texts(l.Tools)}
	if l.Memory != nil {
		c.Memory = units.Size(*l.Memory)
	}
	if l.Disk != nil {
		c.Disk = units.Size(*l.Disk)
	}
	if l.MaxLease != nil {
		c.MaxLease = units.Duration(*l.MaxLease)
	}
	return c
}

func texts[T any](list *[]T) *[]string {
	if list == nil {
		return nil
	}
	out := []string{}
	for _, one := range *list {
		out = append(out, fmt.Sprint(one))
	}
	return &out
}

// Limits reads caps as they were written.
func (c Caps) Limits() (l policy.Limits, err error) {
	for name, n := range map[string]*int64{"sandboxes": c.Sandboxes, "checkpoints": c.Checkpoints, "cpu": c.CPU} {
		if n != nil && *n < 0 {
			return l, fmt.Errorf("%s: %d is invalid: give 0 or more", name, *n)
		}
	}
	l.Sandboxes, l.Checkpoints, l.CPU = c.Sandboxes, c.Checkpoints, c.CPU
	for _, size := range []struct {
		name, text string
		to         **int64
	}{{"memory", c.Memory, &l.Memory}, {"disk", c.Disk, &l.Disk}} {
		if size.text == "" {
			continue
		}
		n, err := units.ParseSize(size.text)
		if err != nil {
			return l, fmt.Errorf("%s: %w", size.name, err)
		}
		*size.to = &n
	}
	if c.MaxLease != "" {
		d, err := units.ParseDuration(c.MaxLease)
		if err != nil {
			return l, fmt.Errorf("max_lease: %w", err)
		}
		l.MaxLease = &d
	}
	if l.Modes, err = policy.ParseModes(c.Egress); err == nil {
		if l.Domains, err = policy.ParseDomains(c.Domains); err == nil {
			l.Tools, err = policy.ParseTools(c.Tools)
		}
	}
	return l, err
}

// String says what the caps are.
func (c Caps) String() string {
	var parts []string
	count := func(n *int64, what string) {
		if n != nil {
			parts = append(parts, fmt.Sprintf("%d %s", *n, what))
		}
	}
	say := func(text, what string) {
		if text != "" {
			parts = append(parts, text+" "+what)
		}
	}
	list := func(l *[]string, what string) {
		if l != nil {
			text := strings.Join(*l, ",")
			if text == "" {
				text = "none"
			}
			parts = append(parts, what+" "+text)
		}
	}
	count(c.Sandboxes, "sandboxes")
	count(c.Checkpoints, "checkpoints")
	count(c.CPU, "cores")
	say(c.Memory, "memory")
	say(c.Disk, "disk")
	say(c.MaxLease, "lease")
	list(c.Egress, "egress")
	list(c.Domains, "domains")
	list(c.Tools, "tools")
	if len(parts) == 0 {
		return "as the policy says"
	}
	return strings.Join(parts, "; ")
}

// Token is a token as JSON shows it.
type Token struct {
	Name      string `json:"name"`
	Parent    string `json:"parent,omitempty"`
	Client    string `json:"client,omitempty"` // that was granted it
	State     string `json:"state"`
	Caps      Caps   `json:"caps"`
	Sandboxes int    `json:"sandboxes"`
	Requests  int    `json:"requests"`
	CreatedAt string `json:"created_at"`
	ExpiresAt string `json:"expires_at,omitempty"`
	RevokedAt string `json:"revoked_at,omitempty"`
	UsedAt    string `json:"used_at,omitempty"`
}

// May says what its holder may have.
func (t Token) May() string {
	if t.Caps == (Caps{}) && t.Parent != "" {
		return "as " + t.Parent
	}
	return t.Caps.String()
}

// TokenOf shows a token. Of one that has ended, and of those below it, the state says so.
func TokenOf(t manager.TokenUse) Token {
	out := Token{Name: t.Name, Parent: owner.Parent(t.Name), Client: t.Client, State: "live", Caps: CapsOf(t.Limits), Sandboxes: t.Sandboxes, Requests: t.Requests}
	for _, at := range []struct {
		time.Time
		to *string
	}{{t.At, &out.CreatedAt}, {t.Expires, &out.ExpiresAt}, {t.Revoked, &out.RevokedAt}, {t.Used, &out.UsedAt}} {
		if !at.IsZero() {
			*at.to = at.UTC().Format(time.RFC3339)
		}
	}
	switch {
	case !t.Revoked.IsZero():
		out.State = "revoked"
	case !t.Live:
		out.State = "expired"
	}
	return out
}
