package manager

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// get finds a sandbox that must be whole, and says which ones there are when it is not there.
func (c *call) get(ctx context.Context, owner, name string) (sandbox.Sandbox, error) {
	s, err := c.begun(ctx, owner, name)
	if err == nil && s.State == sandbox.Creating {
		return sandbox.Sandbox{}, fault.About(sandbox.ErrState, fault.Sandbox(name), "is in the wrong state: it is still being made, or was left half-made; wait, or destroy it")
	}
	return s, err
}

// begun finds a sandbox, also one that is still being made: what is taken from one is taken at any time.
func (c *call) begun(ctx context.Context, owner, name string) (sandbox.Sandbox, error) {
	caller := owner
	owner, own, err := c.whose(caller, name)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	s, err := c.read.Get(ctx, owner, own)
	if errors.Is(err, sandbox.ErrNotFound) {
		there, hint := c.present(ctx, caller)
		return sandbox.Sandbox{}, fault.New(sandbox.ErrNotFound, fault.Sandbox(name), sandbox.ErrNotFound.Error()+"; "+there, hint)
	}
	return s, err
}

// present says which sandboxes an owner has, for an error message.
func (c *call) present(ctx context.Context, owner string) (string, fault.Hint) {
	list, err := c.read.List(ctx, owner)
	if err != nil || len(list) == 0 {
		return "there is none", fault.Hint{Action: fault.CreateSandbox}
	}
	var names []string
	for _, s := range list[:min(len(list), 10)] {
		names = append(names, s.Name)
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, "and "+strconv.Itoa(more)+" more")
	}
	return "there are: " + strings.Join(names, ", "), fault.Hint{}
}

// source finds the sandbox and the checkpoint that NAME:LABEL names, or the sandbox alone for NAME.
func (c *call) source(ctx context.Context, owner, source string) (sandbox.Sandbox, string, error) {
	name, label, err := sandbox.ParseSource(source)
	if err != nil {
		return sandbox.Sandbox{}, "", err
	}
	s, err := c.get(ctx, owner, name)
	if err != nil || label == "" {
		return s, "", err
	}
	checkpoints, err := c.read.Checkpoints(ctx, s.ID)
	if err != nil {
		return sandbox.Sandbox{}, "", err
	}
	var labels []string
	for _, c := range checkpoints {
		if c.Label == label {
			return s, label, nil
		}
		labels = append(labels, c.Label)
	}
	have, hint := "it has none", fault.Hint{Action: fault.CreateCheckpoint}
	if len(labels) > 0 {
		have, hint = "it has: "+strings.Join(labels, ", "), fault.Hint{}
	}
	return sandbox.Sandbox{}, "", fault.New(sandbox.ErrNotFound, fmt.Sprintf("checkpoint %q of sandbox %q", label, name), sandbox.ErrNotFound.Error()+"; "+have, hint)
}

// vetted finds the whole sandbox that a call is about, and then has the call vetted.
func (c *call) vetted(ctx context.Context, ask policy.Call, name string) (*permit, sandbox.Sandbox, error) {
	return c.foundAndVetted(ctx, ask, name, c.get)
}

// vettedBegun is the same for one that may be still being made.
func (c *call) vettedBegun(ctx context.Context, ask policy.Call, name string) (*permit, sandbox.Sandbox, error) {
	return c.foundAndVetted(ctx, ask, name, c.begun)
}

func (c *call) foundAndVetted(ctx context.Context, ask policy.Call, name string, find func(context.Context, string, string) (sandbox.Sandbox, error)) (*permit, sandbox.Sandbox, error) {
	s, err := find(ctx, ask.Owner, name)
	if err != nil && !c.supposed(err) {
		return nil, s, err
	}
	b, err := c.vet(ctx, ask)
	return b, s, err
}

// supposed tells whether a sandbox that is not there is no matter: who tries a call may suppose one.
func (c *call) supposed(err error) bool { return c.Trial && errors.Is(err, sandbox.ErrNotFound) }
