package tools

import (
	"context"
	"fmt"
	"strings"

	"pixels/egress"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

type createInput struct {
	Name   string            `json:"name,omitempty" jsonschema:"lower-case letters, digits and dashes; becomes the host name; made up when left out"`
	From   string            `json:"from,omitempty" jsonschema:"checkpoint, as NAME:LABEL; NAME alone copies a sandbox as it is now"`
	Image  string            `json:"image,omitempty" jsonschema:"instead of from; the base image when both are left out"`
	Egress egress.Mode       `json:"egress,omitempty" jsonschema:"agent: AI APIs, package registries, GitHub; allowlist: allow alone; unrestricted: all but other sandboxes; left out: as configured, or that of from"`
	Allow  []string          `json:"allow,omitempty" jsonschema:"domains to allow, as in allow_domain"`
	CPU    int               `json:"cpu,omitempty" jsonschema:"cores"`
	Memory string            `json:"memory,omitempty" jsonschema:"such as 2GiB"`
	Disk   string            `json:"disk,omitempty" jsonschema:"such as 10GiB; the image may count"`
	TTL    string            `json:"ttl,omitempty" jsonschema:"until it is destroyed by itself, as 30m or 7d; 24h unless configured otherwise"`
	Labels map[string]string `json:"labels,omitempty" jsonschema:"to tell sandboxes apart by"`
	Env    map[string]string `json:"env,omitempty" jsonschema:"environment of every command run in it, and of its clones"`
}

var createSandbox = define(Tool{
	Verb: policy.VerbCreateSandbox, Title: "Create a sandbox", Long: true, Tasks: true,
	Description: "Creates a disposable Linux machine and returns when it is ready for exec. Start from a checkpoint with from, " +
		"else from an image. For several copies of one checkpoint use clone_sandbox. The default user is pixel, with sudo.",
}, func(ctx context.Context, s Session, in createInput) (view.Sandbox, Result, error) {
	limits, err := limitsOf(in.CPU, in.Memory, in.Disk)
	if err != nil {
		return view.Sandbox{}, Result{}, err
	}
	lease, err := ttl(in.TTL)
	if err != nil {
		return view.Sandbox{}, Result{}, err
	}
	made, err := s.Manager.Create(ctx, s.Caller, manager.CreateRequest{
		Name: in.Name, From: in.From, Image: in.Image, Egress: in.Egress, Allow: in.Allow, Labels: in.Labels, Env: in.Env, Limits: limits, TTL: lease,
	})
	return view.SandboxOf(made), Result{Text: "created " + view.SandboxLine(made), Next: waitCall(made.Requests...)}, err
})

// limitsOf reads limits as arguments have them; what is empty is 0.
func limitsOf(cpu int, memory, disk string) (sandbox.Limits, error) {
	limits := sandbox.Limits{CPU: cpu}
	for _, size := range []struct {
		argument, text string
		bytes          *int64
	}{{"memory", memory, &limits.Memory}, {"disk", disk, &limits.Disk}} {
		if size.text == "" {
			continue
		}
		var err error
		if *size.bytes, err = units.ParseSize(size.text); err != nil {
			return limits, fmt.Errorf("the argument %q: %w", size.argument, err)
		}
	}
	return limits, nil
}

type listInput struct {
	Name   string            `json:"name,omitempty" jsonschema:"pattern, as work-*"`
	Labels map[string]string `json:"labels,omitempty" jsonschema:"all of these"`
	State  sandbox.State     `json:"state,omitempty"`
	Limit  int               `json:"limit,omitempty" jsonschema:"up to 200; 50 when left out"`
	Cursor string            `json:"cursor,omitempty" jsonschema:"next_cursor of the answer before"`
}

type listOutput struct {
	Sandboxes  []view.Sandbox `json:"sandboxes" jsonschema:"by name"`
	NextCursor string         `json:"next_cursor,omitempty" jsonschema:"there are more; give it as cursor"`
}

var listSandboxes = define(Tool{
	Verb: policy.VerbListSandboxes, Title: "List sandboxes", ReadOnly: true, Idempotent: true,
	Description: "Lists your sandboxes with their state, address, origin, labels and end of lease.",
}, func(ctx context.Context, s Session, in listInput) (listOutput, Result, error) {
	page, err := s.Manager.List(ctx, s.Caller, manager.ListRequest{Name: in.Name, Labels: in.Labels, State: in.State, Limit: in.Limit, After: in.Cursor})
	if err != nil {
		return listOutput{}, Result{}, err
	}
	out := listOutput{Sandboxes: []view.Sandbox{}, NextCursor: page.Next}
	switch filtered := in.Name != "" || len(in.Labels) > 0 || in.State != "" || in.Cursor != ""; {
	case len(page.Sandboxes) == 0 && filtered:
		return out, Result{Text: "no sandbox matches; without filters list_sandboxes shows all"}, nil
	case len(page.Sandboxes) == 0:
		return out, Result{Text: "there is no sandbox; create_sandbox makes one"}, nil
	}
	lines := []string{view.Count(len(page.Sandboxes), "sandbox", "sandboxes") + ":"}
	for _, box := range page.Sandboxes {
		out.Sandboxes = append(out.Sandboxes, view.SandboxOf(box))
		lines = append(lines, view.SandboxLine(box))
	}
	next := ""
	if out.NextCursor != "" {
		next = fmt.Sprintf("there are more: list_sandboxes with cursor %q", out.NextCursor)
	}
	return out, Result{Text: strings.Join(lines, "\n"), Next: next}, nil
})

type destroyInput struct {
	Names []string `json:"names" jsonschema:"of the sandboxes to destroy"`
}

type destroyOutput struct {
	Destroyed []string     `json:"destroyed,omitempty"`
	Missing   []string     `json:"missing,omitempty" jsonschema:"not there"`
	Failed    []failedName `json:"failed,omitempty"`
}

type failedName struct {
	Name  string `json:"name"`
	Error string `json:"error"`
}

var destroySandbox = define(Tool{
	Verb: policy.VerbDestroySandbox, Title: "Destroy sandboxes", Destructive: true, Idempotent: true, Long: true,
	Description: "Ends sandboxes and removes them with their files and checkpoints, for good. Clones made from them stay. A name that is not there is no failure.",
}, func(ctx context.Context, s Session, in destroyInput) (destroyOutput, Result, error) {
	d, err := s.Manager.Destroy(ctx, s.Caller, in.Names)
	if err != nil {
		return destroyOutput{}, Result{}, err
	}
	out := destroyOutput{Destroyed: append([]string{}, d.Gone...), Missing: append([]string{}, d.Missing...), Failed: []failedName{}}
	var lines []string
	if len(d.Gone) > 0 {
		lines = append(lines, "destroyed "+strings.Join(d.Gone, ", "))
	}
	if len(d.Missing) > 0 {
		lines = append(lines, "not there: "+strings.Join(d.Missing, ", "))
	}
	for _, name := range in.Names {
		if err := d.Failed[name]; err != nil {
			out.Failed = append(out.Failed, failedName{name, view.Error(err, s.Audience)})
			lines = append(lines, fmt.Sprintf("%s could not be destroyed; try again: %s", name, view.Error(err, s.Audience)))
		}
	}
	return out, Result{Text: strings.Join(lines, "\n"), Failed: len(out.Failed) > 0}, nil
})
