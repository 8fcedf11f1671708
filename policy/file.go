package policy

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"pixels/egress"
	"pixels/internal/place"
	"pixels/internal/strict"
	"pixels/internal/units"
)

// Default is the file that set-up writes: all keys with their defaults, and what they mean.
//
//go:embed default.toml
var Default string

// Approval says what proves that a human approves.
type Approval string

// The levels of approval, from open to strong.
const (
	Terminal   Approval = "terminal"
	Passphrase Approval = "passphrase"
	Passkey    Approval = "passkey"
)

// Rules are what one owner may do.
type Rules struct {
	Quota  Quota  `toml:"quota"`
	Create Create `toml:"create"`
	Exec   Exec   `toml:"exec"`
	Egress Egress `toml:"egress"`
	Files  Files  `toml:"files"`
	Tools  Tools  `toml:"tools"`
	Share  Share  `toml:"share"`

	own map[string]bool // keys that this owner has of their own, as quota.sandboxes
}

// Quota bounds what an owner has.
type Quota struct {
	Sandboxes   uint32   `toml:"sandboxes"`
	Checkpoints uint32   `toml:"checkpoints"`
	CPU         uint32   `toml:"cpu"` // cores
	Memory      size     `toml:"memory"`
	Disk        size     `toml:"disk"`
	MaxLease    duration `toml:"max_lease"`
	MaxExec     duration `toml:"max_exec"`
}

// Create is about what sandboxes are made from.
type Create struct {
	Images []pattern `toml:"images"`
}

// Exec is about commands.
type Exec struct {
	Root bool `toml:"root"`
}

// Egress is about what sandboxes may reach.
type Egress struct {
	Modes    []mode    `toml:"modes"`
	Allow    []allowed `toml:"allow"`
	Never    []denial  `toml:"never"`
	Ask      bool      `toml:"ask"`
	Elicit   bool      `toml:"elicit"`
	Hold     duration  `toml:"hold"`
	Grant    duration  `toml:"grant"`
	MaxGrant duration  `toml:"max_grant"`
}

// Files is about the files of this machine.
type Files struct {
	HostFolders []folder `toml:"host_folders"`
}

// Share is about who else may use an owner's sandboxes.
type Share struct {
	With []string `toml:"with"`
}

// Tools is about which of them there are.
type Tools struct {
	Off []call `toml:"off"`
}

// file is the whole of policy.toml.
type file struct {
	Approval level    `toml:"approval"`
	Keep     duration `toml:"keep"`
	Page     address  `toml:"page"`
	Webhook  address  `toml:"webhook"`
	Rules
	Owners map[string]Rules `toml:"owners"`
}

// The values of the file check themselves, so that the error has their line. They are structs: go-toml asks no type whose
// kind is string or number to read itself.
type (
	level    struct{ Approval }
	size     struct{ bytes int64 }
	duration struct{ time.Duration }
	pattern  struct{ string }
	mode     struct{ egress.Mode }
	domain   struct{ egress.Rule }
	allowed  struct { // a domain, or a table
		Domain Domain   `toml:"domain"`
		Scope  grantee  `toml:"scope"`
		For    duration `toml:"for"`
	}
	grantee struct{ Scope }
	denial  struct{ egress.Rule }
	folder  struct{ string }
	call    struct{ Verb }
)

func (l *level) UnmarshalText(b []byte) error {
	l.Approval = Approval(b)
	if !slices.Contains([]Approval{Terminal, Passphrase, Passkey}, l.Approval) {
		return fmt.Errorf("%q is no level of approval: use terminal, passphrase or passkey", b)
	}
	return nil
}

func (s *size) UnmarshalText(b []byte) (err error) {
	s.bytes, err = units.ParseSize(string(b))
	return err
}

func (d *duration) UnmarshalText(b []byte) (err error) {
	if d.Duration = 0; string(b) != "0s" {
		d.Duration, err = units.ParseDuration(string(b))
	}
	return err
}

func (p *pattern) UnmarshalText(b []byte) error {
	if p.string = string(b); len(b) == 0 {
		return errors.New("an empty name: give one, in which * stands for any characters")
	}
	return nil
}

func (m *mode) UnmarshalText(b []byte) error {
	m.Mode = egress.Mode(b)
	return m.Check()
}

// Domain is a rule that reads and writes itself as text.
type Domain struct{ egress.Rule }

// MarshalText implements encoding.TextMarshaler.
func (d Domain) MarshalText() ([]byte, error) { return []byte(d.Rule.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Domain) UnmarshalText(b []byte) (err error) {
	d.Rule, err = egress.ParseRule(string(b))
	return err
}

// UnmarshalText reads a domain alone, which copies inherit, and for as long as a grant may last.
func (a *allowed) UnmarshalText(b []byte) error { return a.Domain.UnmarshalText(b) }

func (g *grantee) UnmarshalText(b []byte) error {
	g.Scope = Scope(b)
	if g.Scope != Askers && g.Scope != ThisLineage {
		return fmt.Errorf("%q is no scope that the policy can grant for: use %s (the sandbox that asks alone) or %s (its copies, too)", b, Askers, ThisLineage)
	}
	return nil
}

func (d *denial) UnmarshalText(b []byte) (err error) {
	d.Rule, err = egress.ParseDenial(string(b))
	return err
}

func (f *folder) UnmarshalText(b []byte) error {
	text := string(b)
	if rest, ok := strings.CutPrefix(text, "~"); ok && (rest == "" || rest[0] == '/') {
		home, err := place.Home()
		if err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		text = home + rest
	}
	if !filepath.IsAbs(text) || filepath.Clean(text) == "/" {
		return fmt.Errorf("%q: give a folder by absolute path or below ~, and not the whole disk", b)
	}
	f.string = filepath.Clean(text)
	return nil
}

func (c *call) UnmarshalText(b []byte) error {
	c.Verb = Verb(b)
	return c.Check()
}

func (p pattern) String() string { return p.string }
func (f folder) String() string  { return f.string }
func (m mode) String() string    { return string(m.Mode) }

// Parse reads a policy. Its errors begin with the line, and name the key.
func Parse(text string) (*Set, error) {
	base := file{}
	base.Quota = Quota{CPU: math.MaxUint32, Memory: size{math.MaxInt64}, Disk: size{math.MaxInt64}}
	if err := decode(Default, &base); err != nil {
		return nil, fmt.Errorf("the policy of this program: %w", err)
	}
	whole := base
	if err := decode(text, &whole); err != nil {
		return nil, err
	}
	if err := complete(whole.Rules); err != nil {
		return nil, err
	}
	set := &Set{approval: whole.Approval.Approval, keep: whole.Keep.Duration, page: whole.Page.string, webhook: whole.Webhook.string, rules: whole.Rules, owners: map[string]*Rules{}}
	// What an owner has of their own goes over what is for all.
	var raw struct {
		Owners map[string]map[string]map[string]any `toml:"owners"`
	}
	if err := toml.Unmarshal([]byte(text), &raw); err != nil {
		return nil, err
	}
	for name, tables := range raw.Owners {
		b, err := toml.Marshal(tables)
		if err != nil {
			return nil, err
		}
		rules := whole.Rules
		rules.own = map[string]bool{}
		if err := toml.Unmarshal(b, &rules); err != nil {
			return nil, fmt.Errorf("owners.%s: %w", name, err)
		}
		if err := complete(rules); err != nil {
			return nil, fmt.Errorf("owners.%s: %w", name, err)
		}
		for table, keys := range tables {
			for key := range keys {
				rules.own[table+"."+key] = true
			}
		}
		set.owners[name] = &rules
	}
	return set, nil
}

// complete refuses tables that lack what they are for.
func complete(r Rules) error {
	for _, a := range r.Egress.Allow {
		if a.Domain.Domain == "" && !a.Domain.CIDR.IsValid() {
			return errors.New("egress.allow: a table there wants a domain, as { domain = \"example.com\", for = \"2h\" }")
		}
	}
	return nil
}

// decode reads a policy over what there is. Its errors begin with the line.
func decode(text string, into *file) error {
	return strict.Decode(text, into, slices.Sorted(maps.Keys(keys())))
}

// keys are all that the file may have, but for owners' own.
func keys() map[string]bool {
	var all map[string]any
	_ = toml.Unmarshal([]byte(Default), &all)
	out := map[string]bool{"page": true, "webhook": true, "quota.cpu": true, "quota.memory": true, "quota.disk": true}
	for key, value := range all {
		table, ok := value.(map[string]any)
		if !ok {
			out[key] = true
		}
		for name := range table {
			out[key+"."+name] = true
		}
	}
	return out
}
