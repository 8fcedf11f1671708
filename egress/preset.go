package egress

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

//go:embed presets.toml
var shipped string

// Presets are bundles of rules by name. A mode may bring one along; a human adds to them in the configuration.
type Presets map[string][]Entry

// Entry is one line of a preset: domains, and whose they are.
type Entry struct {
	// Domains are rules for domains as ParseRule reads them.
	Domains []string `toml:"domains"`
	// Apex adds, for each *.example.com, example.com itself.
	Apex bool `toml:"apex"`
	// Whose names the organisation that runs the domains, and what they are.
	Whose string `toml:"whose"`
	rules []Rule
}

// Shipped returns the presets of the program with more added to them, which must be whole: see Entry.
// The error names the preset and the domain at fault.
func Shipped(more Presets) (Presets, error) {
	all := Presets{}
	if err := toml.NewDecoder(strings.NewReader(shipped)).DisallowUnknownFields().Decode(&all); err != nil {
		return nil, fmt.Errorf("the presets of this program: %w", err)
	}
	for name, entries := range more {
		all[name] = append(all[name], entries...)
	}
	for name, entries := range all {
		for i := range entries {
			if err := entries[i].parse(); err != nil {
				return nil, fmt.Errorf("preset %s: %w", name, err)
			}
		}
	}
	return all, nil
}

func (e *Entry) parse() error {
	e.rules = nil
	if strings.TrimSpace(e.Whose) == "" {
		return fmt.Errorf("%q: say in `whose` whose domains these are", e.Domains)
	}
	if len(e.Domains) == 0 {
		return fmt.Errorf("%q: `domains` is empty", e.Whose)
	}
	for _, text := range e.Domains {
		rule, err := ParseRule(text)
		if err != nil {
			return err
		}
		e.rules = append(e.rules, rule)
		if e.Apex && rule.Below {
			rule.Below = false
			e.rules = append(e.rules, rule)
		}
	}
	return nil
}

// Rules returns the rules of a preset, with where each came from. A preset that is not there has none.
func (p Presets) Rules(name string) (out []Grant) {
	for _, e := range p[name] {
		for _, r := range e.rules {
			out = append(out, Grant{Rule: r, From: "preset " + name + ": " + e.Whose})
		}
	}
	return out
}
