package tools

import (
	"context"
	"fmt"
	"time"

	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
)

// ttl reads the argument of that name; empty is 0, the default.
func ttl(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := units.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("the argument \"ttl\": %w", err)
	}
	return d, nil
}

type stateInput struct {
	Name  string      `json:"name"`
	State wantedState `json:"state"`
}

// wantedState is one that a sandbox can be set to.
type wantedState sandbox.State

var setSandboxState = define(Tool{
	Verb: policy.VerbSetSandboxState, Title: "Start, stop or pause a sandbox", Destructive: true, Idempotent: true, Long: true,
	Description: "Starts, stops or pauses a sandbox and returns when it is so. Stopping ends all that runs in it and keeps its files. " +
		"Pausing freezes its processes where they are, and running lets them go on.",
}, func(ctx context.Context, s Session, in stateInput) (view.Sandbox, Result, error) {
	box, err := s.Manager.SetState(ctx, s.Caller, in.Name, sandbox.State(in.State))
	return view.SandboxOf(box), Result{Text: view.SandboxLine(box)}, err
})

type extendInput struct {
	Name string `json:"name"`
	TTL  string `json:"ttl" jsonschema:"how long it is to live from now, as 30m, 2h or 7d"`
}

var extendSandbox = define(Tool{
	Verb: policy.VerbExtendSandbox, Title: "Extend a lease", Idempotent: true,
	Description: "Sets when a sandbox is destroyed by itself. It may be sooner than before.",
}, func(ctx context.Context, s Session, in extendInput) (view.Sandbox, Result, error) {
	d, err := ttl(in.TTL)
	if err == nil && d == 0 {
		err = fmt.Errorf("the argument \"ttl\" is empty: write it as 30m, 2h or 7d")
	}
	if err != nil {
		return view.Sandbox{}, Result{}, err
	}
	box, err := s.Manager.Extend(ctx, s.Caller, in.Name, d)
	return view.SandboxOf(box), Result{Text: box.Name + " lives until " + view.Clock(box.ExpiresAt)}, err
})

type renameInput struct {
	Name string `json:"name"`
	To   string `json:"to" jsonschema:"lower-case letters, digits and dashes; becomes the host name"`
}

type renameOutput struct {
	Name string `json:"name"`
}

var renameSandbox = define(Tool{
	Verb: policy.VerbRenameSandbox, Title: "Rename a sandbox",
	Description: "Gives a sandbox another name, and its host name with it. Checkpoints go along.",
}, func(ctx context.Context, s Session, in renameInput) (renameOutput, Result, error) {
	box, err := s.Manager.Rename(ctx, s.Caller, in.Name, in.To)
	return renameOutput{box.Name}, Result{Text: in.Name + " is called " + box.Name + " now"}, err
})

type resizeInput struct {
	Name   string `json:"name"`
	CPU    int    `json:"cpu,omitempty" jsonschema:"cores"`
	Memory string `json:"memory,omitempty" jsonschema:"such as 2GiB"`
	Disk   string `json:"disk,omitempty" jsonschema:"such as 10GiB"`
}

// sizeOf writes a size; empty where there is no limit.
func sizeOf(n int64) string {
	if n == 0 {
		return ""
	}
	return units.Size(n)
}

type resizeOutput struct {
	Name   string `json:"name"`
	CPU    int    `json:"cpu,omitempty"`
	Memory string `json:"memory,omitempty"`
	Disk   string `json:"disk,omitempty"`
}

var resizeSandbox = define(Tool{
	Verb: policy.VerbResizeSandbox, Title: "Resize a sandbox", Idempotent: true, Long: true,
	Description: "Changes how many cores, how much memory and disk a sandbox has, while it runs. What is left out stays.",
}, func(ctx context.Context, s Session, in resizeInput) (resizeOutput, Result, error) {
	limits, err := limitsOf(in.CPU, in.Memory, in.Disk)
	if err != nil {
		return resizeOutput{}, Result{}, err
	}
	box, err := s.Manager.Resize(ctx, s.Caller, in.Name, limits)
	out := resizeOutput{Name: box.Name, CPU: box.Limits.CPU, Memory: sizeOf(box.Limits.Memory), Disk: sizeOf(box.Limits.Disk)}
	return out, Result{Text: fmt.Sprintf("%s has %s, %s of memory and %s of disk", out.Name, view.Count(out.CPU, "core", "cores"), out.Memory, out.Disk)}, err
})
