// Package policy decides what agents may do: rules and quotas by owner. It is pure: it reads its file, and keeps nothing.
// It knows no MCP and no backend.
package policy

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/owner"
	"pixels/internal/units"
)

// Call is one request, with what it would take.
type Call struct {
	Verb  Verb
	Owner string
	// Sandbox is the name of the one it is about, for the record.
	Sandbox string
	// Human tells that a human asks by a channel of their own: what would be put to a human is then decided already.
	Human bool
	Needs
	// Caps bound the call beside the policy; nil where it comes by no token.
	Caps *Caps

	// Usage counts what an owner has, together with those below; it is called when a quota needs it.
	Usage func(top string) (Usage, error)
}

// Usage is what an owner has.
type Usage struct {
	Sandboxes, Checkpoints, CPU int
	Memory, Disk                int64 // bytes
}

// Decision is what becomes of a call.
type Decision string

// The decisions. Ask means that a human must decide.
const (
	Allow Decision = "allow"
	Deny  Decision = "deny"
	Ask   Decision = "ask"
)

// Verdict is a decision, and why.
type Verdict struct {
	Decision Decision      `json:"decision"`
	Rule     string        `json:"rule,omitempty"`   // the key of the policy that decided; empty when none had anything against it
	Reason   string        `json:"reason,omitempty"` // for the agent, with what it can do
	Ask      []egress.Rule `json:"ask,omitempty"`    // of the domains, those that a human must decide about
	Hint     fault.Hint    `json:"-"`                // what to do instead
}

// Set is a policy that was read.
type Set struct {
	approval Approval
	keep     time.Duration // of records
	page     string        // address of the page
	webhook  string        // address that is told of requests
	rules    Rules
	owners   map[string]*Rules
}

// For returns the rules of an owner: those of the root of their tree.
func (s *Set) For(name string) *Rules {
	if r := s.owners[owner.Root(name)]; r != nil {
		return r
	}
	return &s.rules
}

// Approval is what proves that a human approves.
func (s *Set) Approval() Approval { return s.approval }

// Hold is how long a blocked connection of an owner's waits for an answer.
func (r *Rules) Hold() time.Duration { return r.Egress.Hold.Duration }

// Shares tells whether the sandboxes of an owner are another's to use, too.
func (s *Set) Shares(owner, with string) bool {
	return owner == with || slices.Contains(s.For(owner).Share.With, with)
}

// Sharing are those whose tables of the policy share their sandboxes with an owner, by name.
func (s *Set) Sharing(with string) (out []string) {
	for name, r := range s.owners {
		if name != with && slices.Contains(r.Share.With, with) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Keep is how long records are kept.
func (s *Set) Keep() time.Duration { return s.keep }

// Elicits tells whether an MCP client may be asked to put a request of an owner's to the human at it.
func (s *Set) Elicits(owner string) bool { return s.approval == Terminal && s.For(owner).Egress.Elicit }

// MaxExec is the longest that a command of an owner's may run.
func (r *Rules) MaxExec() time.Duration { return r.Quota.MaxExec.Duration }

// GrantFor is how long a grant lasts when its approver doesn't say, and the longest that one may.
func (r *Rules) GrantFor() (usual, longest time.Duration) {
	return r.Egress.Grant.Duration, r.Egress.MaxGrant.Duration
}

// Allowance is what the policy grants unasked.
type Allowance struct {
	Rule  egress.Rule
	Scope Scope
	For   time.Duration // how long a grant lasts
}

// Allowances are what an owner is granted unasked.
func (r *Rules) Allowances() (out []Allowance) {
	for _, a := range r.Egress.Allow {
		lasting := r.Egress.MaxGrant.Duration
		if a.For.Duration > 0 {
			lasting = min(lasting, a.For.Duration)
		}
		out = append(out, Allowance{a.Domain.Rule, cmp.Or(a.Scope.Scope, ThisLineage), lasting})
	}
	return out
}

// Allowance returns the one that grants a rule; of several that which lasts longest.
func (r *Rules) Allowance(rule egress.Rule) (by Allowance, ok bool) {
	for _, a := range r.Allowances() {
		if rule.Within(a.Rule) && (!ok || a.For > by.For) {
			by, ok = a, true
		}
	}
	return by, ok
}

// Never are the domains that an owner is never granted.
func (r *Rules) Never() (out []egress.Rule) {
	for _, d := range r.Egress.Never {
		out = append(out, d.Rule)
	}
	return out
}

// HostFolders are those of this machine that files may be copied from and to.
func (r *Rules) HostFolders() (out []string) {
	for _, f := range r.Files.HostFolders {
		out = append(out, f.string)
	}
	return out
}

// Vet decides about a call. The error is that of Usage: then nothing is decided, and nothing may be done.
func (s *Set) Vet(c Call) (Verdict, error) {
	v := vetting{r: s.For(c.Owner), c: c}
	checks := []func() error{v.tool, v.image, v.mode, v.lease, v.exec, v.files, v.quota, v.domains}
	for _, check := range checks {
		if err := check(); err != nil {
			return Verdict{}, err
		}
		if v.verdict.Decision == Deny {
			return v.verdict, nil
		}
	}
	for caps := c.Caps; caps != nil; caps = caps.Parent {
		if got, err := caps.vet(c); err != nil || got.Decision == Deny {
			return got, err
		}
	}
	if v.verdict.Decision == "" {
		v.verdict.Decision = Allow
	}
	return v.verdict, nil
}

// vetting is one call under way through the checks.
type vetting struct {
	r       *Rules
	c       Call
	verdict Verdict
}

// deny decides against the call, by a key of the policy. What the agent can do about it comes last.
func (v *vetting) deny(key, reason string, args ...any) {
	v.verdict = Verdict{Decision: Deny, Rule: v.key(key), Reason: fmt.Sprintf(reason, args...)}
}

// key names a key where it stands in the file.
func (v *vetting) key(key string) string {
	if v.r.own[key] {
		return "owners." + owner.Root(v.c.Owner) + "." + key
	}
	return key
}

func (v *vetting) tool() error {
	switch {
	case !slices.Contains(Verbs, v.c.Verb):
		v.deny("", "there is no call %q", v.c.Verb)
	case !v.r.Offers(v.c.Verb) && !v.c.Human:
		v.deny("tools.off", "%s is switched off here; do without it, or ask a human to change the policy", v.c.Verb)
	}
	return nil
}

func (v *vetting) image() error {
	if v.c.Image == "" || v.c.Image == v.c.FreeImage || slices.ContainsFunc(v.r.Create.Images, func(p pattern) bool { return p.matches(v.c.Image) }) {
		return nil
	}
	v.deny("create.images", "the image %q may not be used here; leave image out, or use one of: %s", v.c.Image, words(v.r.Create.Images))
	return nil
}

// matches tells whether a name is as the pattern has it.
func (p pattern) matches(name string) bool {
	first, rest, star := strings.Cut(p.string, "*")
	name, ok := strings.CutPrefix(name, first)
	if !ok || !star {
		return ok && name == ""
	}
	for i := 0; i <= len(name); i++ {
		if (pattern{rest}).matches(name[i:]) {
			return true
		}
	}
	return false
}

func (v *vetting) mode() error {
	switch {
	case v.c.Mode == "":
	case !v.c.Human && !slices.Contains(v.r.Egress.Modes, mode{v.c.Mode}):
		v.deny("egress.modes", "the egress %s is not for agents to pick here; use one of: %s", v.c.Mode, words(v.r.Egress.Modes))
		v.verdict.Hint = fault.Hint{Action: fault.SetModeByHuman, Name: v.c.Sandbox, Value: string(v.c.Mode)}
	case v.c.Mode == egress.Unrestricted && len(v.r.Egress.Never) > 0: // in it the gateway looks at no names
		v.deny("egress.never", "the egress %s reaches all, also what is never granted here (%s); use %s or %s", v.c.Mode, words(v.r.Egress.Never), egress.Allowlist, egress.Agent)
	}
	return nil
}

func (v *vetting) lease() error {
	if most := v.r.Quota.MaxLease.Duration; v.c.Lease > most {
		v.deny("quota.max_lease", "a lease of %s is too long: ask for up to %s, and extend it later", units.Duration(v.c.Lease), units.Duration(most))
	}
	return nil
}

func (v *vetting) exec() error {
	if most := v.r.Quota.MaxExec.Duration; v.c.Exec > most {
		v.deny("quota.max_exec", "a command may run for up to %s here: give a timeout of at most %v seconds", units.Duration(most), most.Seconds())
	}
	if v.c.Root && !v.r.Exec.Root && !v.c.Human {
		v.deny("exec.root", "commands may not be run as root here; leave user out")
	}
	return nil
}

func (v *vetting) files() error {
	if v.c.HostPath == "" {
		return nil
	}
	for _, f := range v.r.Files.HostFolders {
		if below, err := filepath.Rel(f.string, v.c.HostPath); err == nil && filepath.IsLocal(below) {
			return nil
		}
	}
	if len(v.r.Files.HostFolders) == 0 {
		v.deny("files.host_folders", "no folder of this machine is open to files of sandboxes")
		v.verdict.Hint = fault.Hint{Action: fault.OpenFolder}
		return nil
	}
	v.deny("files.host_folders", "host_path %q lies in none of the folders of this machine that are open to sandboxes (%s)", v.c.HostPath, words(v.r.Files.HostFolders))
	return nil
}

func (v *vetting) quota() error {
	c := v.c
	if c.Sandboxes == 0 && c.Checkpoints == 0 && c.CPU == 0 && c.Memory == 0 && c.Disk == 0 {
		return nil
	}
	have, err := c.Usage(owner.Root(c.Owner))
	if err != nil {
		return err
	}
	q := v.r.Quota
	const free = "; destroy what you no longer need, or ask a human to raise the quota"
	for _, bound := range []struct {
		key, what       string
		have, more, max int64
		text            func(int64) string
	}{
		{"sandboxes", "sandboxes", int64(have.Sandboxes), int64(c.Sandboxes), int64(q.Sandboxes), number},
		{"checkpoints", "checkpoints", int64(have.Checkpoints), int64(c.Checkpoints), int64(q.Checkpoints), number},
		{"cpu", "cores", int64(have.CPU), int64(c.CPU), int64(q.CPU), number},
		{"memory", "memory", have.Memory, c.Memory, q.Memory.bytes, units.Size},
		{"disk", "disk", have.Disk, c.Disk, q.Disk.bytes, units.Size},
	} {
		if bound.more > 0 && bound.more > bound.max-bound.have {
			v.deny("quota."+bound.key, "%s: you have %s of %s, and this takes %s more%s", bound.what, bound.text(bound.have), bound.text(bound.max), bound.text(bound.more), free)
			return nil
		}
	}
	return nil
}

func number(n int64) string { return fmt.Sprint(n) }

func (v *vetting) domains() error {
	var ask []egress.Rule
	for _, d := range v.c.Domains {
		for _, never := range v.r.Egress.Never {
			if d.Overlaps(never.Rule) {
				v.deny("egress.never", "%s is never granted here (%s): do without it", d, never.Rule)
				return nil
			}
		}
		if !v.c.Human && !slices.ContainsFunc(v.r.Egress.Allow, func(a allowed) bool { return d.Within(a.Domain.Rule) }) {
			ask = append(ask, d)
		}
	}
	switch {
	case len(ask) == 0:
	case !v.r.Egress.Ask:
		v.deny("egress.ask", "%s may not be reached, and nobody is asked here", words(ask))
		v.verdict.Hint = fault.Hint{Action: fault.AllowByHuman, Name: v.c.Sandbox, Value: ask[0].String()}
	default:
		v.verdict = Verdict{Decision: Ask, Rule: v.key("egress.ask"), Reason: "a human must decide about " + words(ask), Ask: ask}
	}
	return nil
}

func words[T any](list []T) string {
	var out []string
	for _, w := range list {
		out = append(out, fmt.Sprint(w))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}
