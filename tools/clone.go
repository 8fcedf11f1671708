package tools

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"pixels/egress"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox/manager"
)

type cloneInput struct {
	Source  string            `json:"source" jsonschema:"checkpoint, as NAME:LABEL"`
	Count   *int              `json:"count,omitempty" jsonschema:"how many, up to 64; 1 when left out"`
	Names   []string          `json:"names,omitempty" jsonschema:"one each; SOURCE-1 and so on when left out"`
	Egress  egress.Mode       `json:"egress,omitempty" jsonschema:"that of the source when left out"`
	Allow   []string          `json:"allow,omitempty" jsonschema:"domains to allow beside those of the source"`
	TTL     string            `json:"ttl,omitempty" jsonschema:"until each is destroyed by itself, as 30m or 7d"`
	Labels  map[string]string `json:"labels,omitempty" jsonschema:"for each clone; those of the source are not taken over"`
	Command *command          `json:"command,omitempty" jsonschema:"run in each clone as by exec, all at once; a string runs in bash"`
}

type cloneOutput struct {
	Clones []cloneResult `json:"clones"`
	Made   int           `json:"made"`
	Failed int           `json:"failed" jsonschema:"not made, or the command not run"`
}

// cloneResult is a clone as the sandbox that it is. One that could not be made has a name and an error alone.
type cloneResult struct {
	view.Sandbox
	Exec  *view.Run `json:"exec,omitempty" jsonschema:"what the command left"`
	Error string    `json:"error,omitempty"`
}

var cloneSandbox = define(Tool{
	Verb: policy.VerbCloneSandbox, Title: "Clone a sandbox", Long: true, Tasks: true,
	Description: "Makes copies of a checkpoint side by side, each a sandbox of its own and ready, and runs a command in each if one is given. " +
		"Make the checkpoint with create_checkpoint first. Each clone is reported by itself: one that fails undoes no other.",
}, func(ctx context.Context, s Session, in cloneInput) (cloneOutput, Result, error) {
	lease, err := ttl(in.TTL)
	if err != nil {
		return cloneOutput{}, Result{}, err
	}
	r := manager.CloneRequest{Source: in.Source, Names: in.Names, Egress: in.Egress, Allow: in.Allow, Labels: in.Labels, TTL: lease}
	if in.Count != nil {
		if r.Count = *in.Count; r.Count == 0 {
			return cloneOutput{}, Result{}, fmt.Errorf("the argument \"count\" is 0; give 1 to %d", manager.MaxClones)
		}
	}
	if in.Command != nil {
		r.Command = &manager.ExecRequest{Argv: in.Command.argv, Shell: in.Command.shell}
	}
	if s.Progress != nil {
		done, total := 0, max(1, r.Count, len(r.Names))
		var telling sync.Mutex // in order
		s.Progress(fmt.Sprintf("making %s", view.Count(total, "clone", "clones")), 0, total)
		r.Done = func(c manager.CloneResult) {
			telling.Lock()
			defer telling.Unlock()
			done++
			what := "is done"
			if c.Err != nil {
				what = "failed"
			}
			s.Progress(fmt.Sprintf("%s %s, %d of %d", c.Name, what, done, total), done, total)
		}
	}
	results, err := s.Manager.Clone(ctx, s.Caller, r)
	if err != nil {
		return cloneOutput{}, Result{}, err
	}
	out := cloneOutput{Clones: []cloneResult{}}
	var lines, open []string
	for _, got := range results {
		open = append(open, got.Sandbox.Requests...)
		clone := cloneResult{Sandbox: view.Sandbox{Name: got.Name}}
		if got.Err != nil {
			clone.Error = view.Error(got.Err, s.Audience)
		} else {
			out.Made++
			clone.Sandbox = view.SandboxOf(got.Sandbox)
		}
		if got.ExecErr != nil {
			clone.Error = view.Error(got.ExecErr, s.Audience)
		}
		lines = append(lines, "--- "+got.Name)
		if clone.Error != "" {
			out.Failed++
			lines = append(lines, "failed: "+clone.Error)
		}
		if got.Exec != nil {
			o := view.RunOf(*got.Exec)
			clone.Exec = &o
			lines = append(lines, o.Text())
		}
		out.Clones = append(out.Clones, clone)
	}
	head := fmt.Sprintf("made %d of %d clones of %s", out.Made, len(results), in.Source)
	return out, Result{Text: strings.Join(append([]string{head}, lines...), "\n"), Next: waitCall(slices.Compact(slices.Sorted(slices.Values(open)))...), Failed: out.Made == 0}, nil
})
