package policy

import (
	"fmt"
	"slices"
	"time"

	"pixels/egress"
	"pixels/internal/units"
)

// Limits are what a token allows its holder at most, below what the policy says. A field that is absent bounds nothing; an empty
// list allows nothing.
type Limits struct {
	Sandboxes   *int64         `json:"sandboxes,omitempty"`
	Checkpoints *int64         `json:"checkpoints,omitempty"`
	CPU         *int64         `json:"cpu,omitempty"`       // cores, of all sandboxes together, as Memory and Disk are
	Memory      *int64         `json:"memory,omitempty"`    // bytes
	Disk        *int64         `json:"disk,omitempty"`      // bytes
	MaxLease    *time.Duration `json:"max_lease,omitempty"` // in nanoseconds
	Modes       *[]egress.Mode `json:"egress,omitempty"`    // egress modes that may be picked
	Domains     *[]Domain      `json:"domains,omitempty"`   // that may be asked for
	Tools       *[]Verb        `json:"tools,omitempty"`
}

// Caps are the limits of a token, with those of the tokens above it: all of them hold. What the holders of a token and of those below
// it have counts together against the token's limits.
type Caps struct {
	Holder string // whose sandboxes count, with those of the holders below
	Limits
	Parent *Caps // nil for a token that a human made
}

// Offers tells whether a tool may be called.
func (c *Caps) Offers(v Verb) bool {
	for ; c != nil; c = c.Parent {
		if c.Tools != nil && !slices.Contains(*c.Tools, v) {
			return false
		}
	}
	return true
}

// Narrower checks that a token with limits may stand below one with these caps: what they bound, it has no more of.
func (c *Caps) Narrower(l Limits) error {
	for ; c != nil; c = c.Parent {
		for _, bound := range []struct {
			name     string
			has, may *int64
			text     func(int64) string
		}{
			{"sandboxes", l.Sandboxes, c.Sandboxes, number},
			{"checkpoints", l.Checkpoints, c.Checkpoints, number},
			{"cpu", l.CPU, c.CPU, number},
			{"memory", l.Memory, c.Memory, units.Size},
			{"disk", l.Disk, c.Disk, units.Size},
			{"max_lease", nanoseconds(l.MaxLease), nanoseconds(c.MaxLease), func(n int64) string { return units.Duration(time.Duration(n)) }},
		} {
			if bound.has != nil && bound.may != nil && *bound.has > *bound.may {
				return fmt.Errorf("%s: %s has %s, and a token below it has no more: give up to that", bound.name, c.Holder, bound.text(*bound.may))
			}
		}
		for _, m := range listed(l.Modes) {
			if err := c.picks(m); err != nil {
				return fmt.Errorf("egress: %w", err)
			}
		}
		for _, d := range listed(l.Domains) {
			if c.Domains != nil && !within(d, *c.Domains) {
				return c.wider("domains", d, *c.Domains)
			}
		}
		for _, v := range listed(l.Tools) {
			if c.Tools != nil && !slices.Contains(*c.Tools, v) {
				return c.wider("tools", v, *c.Tools)
			}
		}
	}
	return nil
}

// picks tells whether an egress mode is for the holder of this token. Where domains are bounded, the mode that reaches all must be allowed by name.
func (c *Caps) picks(m egress.Mode) error {
	switch {
	case c.Modes != nil && !slices.Contains(*c.Modes, m):
		return fmt.Errorf("%s is not for the token %s to pick; use one of: %s", m, c.Holder, words(*c.Modes))
	case c.Modes == nil && c.Domains != nil && m == egress.Unrestricted:
		return fmt.Errorf("%s reaches more than the domains of the token %s: %s", m, c.Holder, words(*c.Domains))
	}
	return nil
}

func within(d Domain, list []Domain) bool {
	return slices.ContainsFunc(list, func(wider Domain) bool { return d.Within(wider.Rule) })
}

func (c *Caps) wider(name string, has, may any) error {
	return fmt.Errorf("%s: %v is not among those of %s, and a token below it has no more: %v", name, has, c.Holder, may)
}

func nanoseconds(d *time.Duration) *int64 { return (*int64)(d) }

func listed[T any](list *[]T) []T {
	if list == nil {
		return nil
	}
	return *list
}

// vet decides about a call by the limits of one token.
func (c *Caps) vet(call Call) (Verdict, error) {
	deny := func(key, reason string, args ...any) (Verdict, error) {
		return Verdict{Decision: Deny, Rule: "token " + c.Holder + " " + key, Reason: fmt.Errorf(reason, args...).Error()}, nil
	}
	if c.Tools != nil && !slices.Contains(*c.Tools, call.Verb) {
		return deny("tools", "%s is none of the calls of this token (%s)", call.Verb, words(*c.Tools))
	}
	if call.Mode != "" {
		if err := c.picks(call.Mode); err != nil {
			return deny("egress", "the egress %w", err)
		}
	}
	if c.MaxLease != nil && call.Lease > *c.MaxLease {
		return deny("max_lease", "a lease of %s is too long: ask for up to %s, and extend it later", units.Duration(call.Lease), units.Duration(*c.MaxLease))
	}
	for _, d := range call.Domains {
		if c.Domains != nil && !within(Domain{d}, *c.Domains) {
			return deny("domains", "%s is not for this token to ask for (%s): do without it", d, words(*c.Domains))
		}
	}
	takes := Usage{Sandboxes: call.Sandboxes, Checkpoints: call.Checkpoints, CPU: call.CPU, Memory: call.Memory, Disk: call.Disk}
	if takes == (Usage{}) {
		return Verdict{Decision: Allow}, nil
	}
	u, err := call.Usage(c.Holder)
	if err != nil {
		return Verdict{}, err
	}
	for _, bound := range []struct {
		key        string
		have, more int64
		most       *int64
		text       func(int64) string
	}{
		{"sandboxes", int64(u.Sandboxes), int64(takes.Sandboxes), c.Sandboxes, number},
		{"checkpoints", int64(u.Checkpoints), int64(takes.Checkpoints), c.Checkpoints, number},
		{"cpu", int64(u.CPU), int64(takes.CPU), c.CPU, number},
		{"memory", u.Memory, takes.Memory, c.Memory, units.Size},
		{"disk", u.Disk, takes.Disk, c.Disk, units.Size},
	} {
		if bound.most != nil && bound.more > 0 && bound.more > *bound.most-bound.have {
			return deny(bound.key, "this token and those below it have %s of %s, and this takes %s more; destroy what you no longer need", bound.text(bound.have), bound.text(*bound.most), bound.text(bound.more))
		}
	}
	return Verdict{Decision: Allow}, nil
}

// ParseModes reads egress modes; nil stays nil.
func ParseModes(list *[]string) (*[]egress.Mode, error) {
	return parsed(list, func(text string) (egress.Mode, error) {
		m := egress.Mode(text)
		return m, m.Check()
	})
}

// ParseDomains reads domains that a token may ask for; nil stays nil.
func ParseDomains(list *[]string) (*[]Domain, error) {
	return parsed(list, func(text string) (d Domain, err error) {
		d.Rule, err = egress.ParseRule(text)
		return d, err
	})
}

// ParseTools reads the names of tools; nil stays nil.
func ParseTools(list *[]string) (*[]Verb, error) {
	return parsed(list, func(text string) (Verb, error) {
		v := Verb(text)
		return v, v.Check()
	})
}

func parsed[T any](list *[]string, parse func(string) (T, error)) (*[]T, error) {
	if list == nil {
		return nil, nil
	}
	out := []T{}
	for _, text := range *list {
		one, err := parse(text)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return &out, nil
}
