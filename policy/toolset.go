package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pixels/internal/nearest"
)

// Toolsets are tools that go together, by the name of the set.
var Toolsets = map[string][]Verb{
	"sandboxes":   {VerbCreateSandbox, VerbCloneSandbox, VerbListSandboxes, VerbSetSandboxState, VerbExtendSandbox, VerbRenameSandbox, VerbResizeSandbox, VerbDestroySandbox},
	"checkpoints": {VerbCreateCheckpoint, VerbListCheckpoints, VerbRestoreCheckpoint, VerbDeleteCheckpoint},
	"exec":        {VerbExec},
	"files":       {VerbReadFile, VerbWriteFile, VerbEditFile, VerbListFiles, VerbCopyFiles},
	"egress":      {VerbAllowDomain, VerbDenyDomain, VerbEgress},
	"tokens":      {VerbMintToken},
}

// ReadOnly are the tools that change nothing.
var ReadOnly = []Verb{VerbListSandboxes, VerbListCheckpoints, VerbReadFile, VerbListFiles}

// ParseToolsets returns the tools of some sets, and those without which their answers can't be followed up.
func ParseToolsets(names []string) ([]Verb, error) {
	known := slices.Sorted(maps.Keys(Toolsets))
	out := []Verb{VerbListSandboxes, VerbWait}
	for _, name := range names {
		set, ok := Toolsets[name]
		if !ok {
			return nil, fmt.Errorf("there is no toolset %q%s; there are: %s", name, nearest.Hint(name, known), strings.Join(known, ", "))
		}
		out = append(out, set...)
	}
	slices.SortFunc(out, func(a, b Verb) int { return slices.Index(Verbs, a) - slices.Index(Verbs, b) })
	return slices.Compact(out), nil
}

// Both are the tools that are in two lists; nil is all.
func Both(a, b *[]Verb) *[]Verb {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	out := slices.DeleteFunc(slices.Clone(*a), func(v Verb) bool { return !slices.Contains(*b, v) })
	return &out
}

// Offers tells whether agents may call a tool at all.
func (r *Rules) Offers(v Verb) bool { return !slices.Contains(r.Tools.Off, call{v}) }
