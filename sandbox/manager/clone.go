package manager

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// MaxClones is the most that one request may make.
const MaxClones = 64

// CloneRequest asks for copies of a checkpoint.
type CloneRequest struct {
	Source  string // NAME:LABEL
	Count   int    // 0 means as many as Names, or 1
	Names   []string
	Egress  egress.Mode // empty means the source's
	Allow   []string    // domains that each may reach beside those of the source
	Labels  map[string]string
	TTL     time.Duration // 0 means the default lease
	Command *ExecRequest  // run in each clone once it is ready; its Name is ignored

	Done func(CloneResult) // hears of each, from several goroutines at once; may be nil
}

// CloneResult is what became of one clone: either Err, or Sandbox and, when there was a command, Exec or ExecErr.
type CloneResult struct {
	Name    string
	Sandbox sandbox.Sandbox
	Err     error
	Exec    *ExecResult
	ExecErr error
}

// Clone makes copies of a checkpoint side by side and runs a command in each. One that fails undoes no other. An error
// means that the request itself was wrong, and that nothing was made.
func (m *Manager) Clone(ctx context.Context, caller Caller, r CloneRequest) ([]CloneResult, error) {
	c := m.begin(caller)
	switch {
	case r.Count < 0 || r.Count > MaxClones || len(r.Names) > MaxClones:
		return nil, fault.About(sandbox.ErrInvalid, "count", "is invalid: give 1 to %d", MaxClones)
	case r.Count != 0 && len(r.Names) > 0 && r.Count != len(r.Names):
		return nil, fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "count is %d and names has %d: that is invalid; give one of them, or as many names as count says", r.Count, len(r.Names))
	}
	for i, name := range r.Names {
		if err := sandbox.CheckName(name); err != nil {
			return nil, err
		}
		if slices.Contains(r.Names[:i], name) {
			return nil, fault.About(sandbox.ErrInvalid, "names", "has %q twice: that is invalid", name)
		}
	}
	if err := errors.Join(sandbox.CheckLabels(r.Labels), checkEgress(r.Egress)); err != nil {
		return nil, err
	}
	if r.Command != nil {
		if err := r.Command.check(MaxTimeout); err != nil {
			return nil, err
		}
	}
	expires, err := c.expiry(r.TTL)
	if err != nil {
		return nil, err
	}
	source, label, err := c.source(ctx, c.Owner, r.Source)
	if err != nil {
		return nil, err
	}
	if label == "" {
		return nil, fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.ListCheckpoints}, "source %s is invalid: it names no checkpoint", sandbox.Quote(r.Source))
	}
	mode := r.Egress
	if mode == "" {
		mode = source.Egress
	}
	if err := errors.Join(c.mayHave(source, mode), c.liftsNothing(mode, source.Rules)); err != nil {
		return nil, err
	}
	asked, err := allowed(mode, r.Allow)
	if err != nil {
		return nil, err
	}
	n := max(r.Count, len(r.Names), 1)
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbCloneSandbox, Owner: c.Owner, Sandbox: r.Source, Needs: policy.Needs{Sandboxes: n, CPU: n * source.Limits.CPU, Memory: int64(n) * source.Limits.Memory, Disk: int64(n) * source.Limits.Disk, Mode: mode, Domains: asked, Lease: time.Until(expires), Exec: r.Command.most(), Root: r.Command.root()}})
	if err != nil {
		return nil, err
	}
	defer b.done()
	like := source
	like.Egress = mode
	give, ask := c.divide(b.verdict, like, asked)
	rules, err := c.grant(c.Owner, egress.Inherited(source.Rules), give, string(policy.VerbCloneSandbox))
	if err != nil {
		return nil, err
	}
	making := make(chan struct{}, parallel)
	clone := func(name string) (made CloneResult) {
		if r.Done != nil {
			defer func() { r.Done(made) }()
		}
		spec := sandbox.Spec{Name: name, Owner: c.Owner, Egress: r.Egress, Labels: r.Labels, ExpiresAt: expires, Nesting: c.defaults.Nesting, Early: r.Command != nil}
		spec.CopyOf(source, label)
		spec.Rules = rules
		made.Name = name
		making <- struct{}{}
		made.Sandbox, made.Err = c.copy(ctx, b, spec, c.Owner, r.Source, source.Egress, r.Egress, give, string(policy.VerbCloneSandbox))
		<-making
		made.Sandbox, made.Err = c.asked(ctx, b, made.Sandbox, give, ask, made.Err)
		if made.Err != nil || r.Command == nil {
			return made
		}
		ran, err := c.run(ctx, b, c.Owner, made.Sandbox, *r.Command)
		if err != nil {
			made.ExecErr = err
		} else {
			made.Exec = &ran
		}
		return made
	}
	var results []CloneResult
	if len(r.Names) > 0 {
		results = createNamed(r.Names, clone)
	} else if results, err = c.createNumbered(ctx, c.Owner, source.Name, n, clone); err != nil {
		return nil, err
	}
	return results, nil
}

// createNamed makes one sandbox a name, side by side.
func createNamed(names []string, create func(name string) CloneResult) []CloneResult {
	results := make([]CloneResult, len(names))
	sideBySide(len(names), len(names), func(i int) { results[i] = create(names[i]) })
	return results
}

// createNumbered makes count sandboxes that are called prefix-1, prefix-2 and so on, over what is taken. Where another
// request takes one of the names at the same time, the next number is tried.
func (c *call) createNumbered(ctx context.Context, owner, prefix string, count int, create func(name string) CloneResult) ([]CloneResult, error) {
	taken := map[string]bool{}
	list, err := c.read.List(ctx, owner)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		taken[s.Name] = true
	}
	prefix = prefix[:min(len(prefix), 56)] // room for the number in a host name
	free := func() string {
		for n := 1; ; n++ {
			if name := prefix + "-" + strconv.Itoa(n); !taken[name] {
				taken[name] = true
				return name
			}
		}
	}
	var names []string
	for range count {
		names = append(names, free())
	}
	results := createNamed(names, create)
	for range 5 {
		var again []int
		names = nil
		for i := range results {
			if errors.Is(results[i].Err, sandbox.ErrExists) {
				again = append(again, i)
				names = append(names, free())
			}
		}
		for k, result := range createNamed(names, create) {
			results[again[k]] = result
		}
	}
	return results, nil
}
