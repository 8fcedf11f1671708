package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// CreateRequest asks for one sandbox. All fields may be empty.
type CreateRequest struct {
	Name   string // one is made up when empty
	From   string // NAME:LABEL, or NAME for its present state; excludes Image
	Image  string
	Egress egress.Mode // empty means the default, or the source's
	Allow  []string    // domains that it may reach beside those of the mode
	Labels map[string]string
	Env    map[string]string
	Limits sandbox.Limits // what is zero gets the default, or the source's
	TTL    time.Duration  // 0 means the default lease
}

// Create makes and starts a sandbox, from a checkpoint or from an image, and returns when it is ready.
func (m *Manager) Create(ctx context.Context, caller Caller, r CreateRequest) (sandbox.Sandbox, error) {
	c := m.begin(caller)
	spec := sandbox.Spec{Name: r.Name, Owner: c.Owner, Egress: r.Egress, Labels: r.Labels, Env: map[string]string{}, Limits: r.Limits, Nesting: c.defaults.Nesting}
	if r.Name != "" {
		if err := sandbox.CheckName(r.Name); err != nil {
			return sandbox.Sandbox{}, err
		}
	}
	if err := errors.Join(sandbox.CheckLabels(r.Labels), sandbox.CheckEnv(r.Env), checkLimits(r.Limits), checkEgress(r.Egress)); err != nil {
		return sandbox.Sandbox{}, err
	}
	var err error
	if spec.ExpiresAt, err = c.expiry(r.TTL); err != nil {
		return sandbox.Sandbox{}, err
	}
	has := r.Limits // what a copy has of its source in it
	var was egress.Mode
	if r.From != "" {
		if r.Image != "" {
			return sandbox.Sandbox{}, fault.About(sandbox.ErrInvalid, "from and image", "are invalid together: give one of them")
		}
		source, label, err := c.source(ctx, c.Owner, r.From)
		if err != nil {
			return sandbox.Sandbox{}, err
		}
		spec.CopyOf(source, label)
		if err := errors.Join(c.mayHave(source, spec.Egress), c.liftsNothing(spec.Egress, spec.Rules)); err != nil {
			return sandbox.Sandbox{}, err
		}
		was, has = source.Egress, r.Limits.Or(source.Limits)
	} else {
		spec.Image = r.Image
		if spec.Image == "" {
			spec.Image = c.defaults.Image
		}
		spec.From = spec.Image
		spec.Limits = r.Limits.Or(c.defaults.Limits)
		has = spec.Limits
		if spec.Egress == "" {
			spec.Egress = c.defaults.Egress
		}
		for key, value := range c.defaults.Env {
			spec.Env[key] = value
		}
		if spec.Egress == egress.Agent || spec.Egress == egress.Allowlist {
			for _, rule := range c.defaults.Allow {
				spec.Rules = append(spec.Rules, egress.Grant{Rule: rule, From: "the configuration", At: egress.After(spec.Rules)})
			}
		}
	}
	for key, value := range r.Env {
		spec.Env[key] = value
	}
	if err := sandbox.CheckEnv(spec.Env); err != nil { // too much together with the defaults, say
		return sandbox.Sandbox{}, err
	}
	asked, err := allowed(spec.Egress, r.Allow)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbCreateSandbox, Owner: c.Owner, Sandbox: r.Name, Needs: policy.Needs{Sandboxes: 1, CPU: has.CPU, Memory: has.Memory, Disk: has.Disk, Image: spec.Image, FreeImage: c.defaults.Image, Mode: spec.Egress, Domains: asked, Lease: time.Until(spec.ExpiresAt)}})
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	defer b.done()
	give, ask := c.divide(b.verdict, sandbox.Sandbox{Egress: spec.Egress, Rules: spec.Rules}, asked)
	if spec.Rules, err = c.grant(c.Owner, spec.Rules, give, string(policy.VerbCreateSandbox)); err != nil {
		return sandbox.Sandbox{}, err
	}
	create := func(name string) (sandbox.Sandbox, error) {
		s := spec
		s.Name = name
		made, err := c.copy(ctx, b, s, c.Owner, r.From, was, r.Egress, give, string(policy.VerbCreateSandbox))
		if spare := c.defaults.SpareImage; r.From == "" && r.Image == "" && spare != "" && spare != spec.Image && errors.Is(err, sandbox.ErrNotFound) {
			if c.defaults.Warn != nil {
				c.defaults.Warn(Notice(fmt.Sprintf("the image %s of the configuration is not here, and images are fetched from nowhere: %s is taken instead; name it, or another one that is here, as defaults.image", spec.Image, spare)))
			}
			s.Image, s.From = spare, spare
			return c.copy(ctx, b, s, c.Owner, "", was, r.Egress, give, string(policy.VerbCreateSandbox))
		}
		return made, err
	}
	if spec.Name != "" {
		made, err := create(spec.Name)
		return c.asked(ctx, b, made, give, ask, err)
	}
	made, err := c.createNumbered(ctx, c.Owner, "sandbox", 1, func(name string) CloneResult {
		box, err := create(name)
		return CloneResult{Name: name, Sandbox: box, Err: err}
	})
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	return c.asked(ctx, b, made[0].Sandbox, give, ask, made[0].Err)
}

// asked puts what its creator wants allowed in a new sandbox to a human. When that can't be, the sandbox goes again.
func (c *call) asked(ctx context.Context, b *permit, made sandbox.Sandbox, give, ask []egress.Rule, err error) (sandbox.Sandbox, error) {
	if err != nil {
		return made, err
	}
	requests, err := c.raise(made, "", 0, ask, false)
	if err != nil {
		return sandbox.Sandbox{}, errors.Join(err, b.Destroy(context.WithoutCancel(ctx), made.ID))
	}
	made.Requests = openIDs(requests)
	c.fired(ctx, made, give)
	return made, nil
}

// maxCopies is how often a copy is begun anew because what its source may reach was changed meanwhile.
const maxCopies = 8

// copy makes a sandbox of a spec, and anew when what its source may reach was changed meanwhile: so that what was taken from
// the source is not in the copy. from is the source as it was asked for and was its mode then, mode the egress mode if one was
// asked for, and give what the copy is given besides.
func (c *call) copy(ctx context.Context, b *permit, spec sandbox.Spec, owner, from string, was, mode egress.Mode, give []egress.Rule, by string) (sandbox.Sandbox, error) {
	vetted := spec.Egress
	for try := 1; ; try++ {
		made, err := b.create(ctx, spec)
		if !errors.Is(err, sandbox.ErrChanged) || try == maxCopies {
			return made, err
		}
		source, label, e := c.source(ctx, owner, from)
		if e != nil {
			return made, e
		}
		spec.Egress = mode
		if source.Egress != was && source.Egress == egress.None {
			spec.Egress = egress.None // who cut it off meant what was made of it just then, too
		}
		spec.CopyOf(source, label)
		if spec.Egress != vetted && spec.Egress != egress.None { // nobody was asked whether it may
			return made, fmt.Errorf("the egress of %s is %s now: %w; call again", from, spec.Egress, err)
		}
		if spec.Rules, e = c.grant(owner, spec.Rules, give, by); e != nil {
			return made, e
		}
	}
}

func checkLimits(l sandbox.Limits) error {
	switch {
	case l.CPU < 0:
		return fault.About(sandbox.ErrInvalid, fmt.Sprintf("cpu %d", l.CPU), "is invalid: give a number of cores, 1 or more")
	case l.Memory < 0 || l.Memory > 0 && l.Memory < 128<<20:
		return fault.About(sandbox.ErrInvalid, "memory", "is invalid: give 128MiB or more")
	case l.Disk < 0 || l.Disk > 0 && l.Disk < 1<<30:
		return fault.About(sandbox.ErrInvalid, "disk", "is invalid: give 1GiB or more, for the base image may count")
	case l.Processes < 0:
		return fault.About(sandbox.ErrInvalid, fmt.Sprintf("processes %d", l.Processes), "is invalid")
	}
	return nil
}

func checkEgress(mode egress.Mode) error {
	if mode == "" {
		return nil
	}
	if err := mode.Check(); err != nil {
		return fmt.Errorf("egress is %w: %w", sandbox.ErrInvalid, err)
	}
	return nil
}
