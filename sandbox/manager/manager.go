// Package manager has the use cases: every request goes through a Manager before a backend sees it, which vets it by the policy
// and puts down what became of it. It knows no MCP, no Incus and no terminal.
package manager

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/plain"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Defaults is what a sandbox gets when its creator does not say.
type Defaults struct {
	Image   string
	Egress  egress.Mode
	Presets egress.Presets // rules that modes bring along
	Limits  sandbox.Limits
	Env     map[string]string

	Nesting bool // containers may run inside

	Policy *policy.Policy // nil means the shipped one
	Store  *ledger.Store  // of records and requests; nil means that nothing is on record, and that no human can be asked

	Lease    time.Duration // how long a sandbox lives whose creator does not say; 0 means DefaultLease
	MaxLease time.Duration // the longest that one may ask for; 0 means DefaultMaxLease
}

// Leases where the configuration says nothing.
const (
	DefaultLease    = 24 * time.Hour
	DefaultMaxLease = 30 * 24 * time.Hour
)

// Manager vets requests and has a Backend carry them out. It keeps no state: what there is, the backend knows.
type Manager struct {
	read     reader
	gate     *gate
	defaults Defaults
}

// New returns a Manager over a backend.
func New(b sandbox.Backend, d Defaults) *Manager {
	if d.Lease == 0 {
		d.Lease = DefaultLease
	}
	if d.MaxLease == 0 {
		d.MaxLease = max(DefaultMaxLease, d.Lease)
	}
	if d.Policy == nil {
		d.Policy = policy.Shipped()
	}
	if d.Store == nil {
		d.Store = ledger.Noop()
	}
	return &Manager{read: b, gate: &gate{backend: b, policy: d.Policy, store: d.Store}, defaults: d}
}

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
		return c.copy(ctx, b, s, c.Owner, r.From, was, r.Egress, give, string(policy.VerbCreateSandbox))
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

// maxDescription bounds what is said of a checkpoint, in bytes.
const maxDescription = 1000

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

// get finds a sandbox that must be whole, and says which ones there are when it is not there.
func (c *call) get(ctx context.Context, owner, name string) (sandbox.Sandbox, error) {
	s, err := c.begun(ctx, owner, name)
	if err == nil && s.State == sandbox.Creating {
		return sandbox.Sandbox{}, fmt.Errorf("sandbox %q is in the %w: it is still being made, or was left half-made; wait, or destroy it", name, sandbox.ErrState)
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

// CreateCheckpoint keeps the file system of a sandbox under a label; one is made up when it is empty.
func (m *Manager) CreateCheckpoint(ctx context.Context, caller Caller, name, label, description string) (sandbox.Checkpoint, error) {
	c := m.begin(caller)
	s, err := c.get(ctx, c.Owner, name)
	if err != nil {
		return sandbox.Checkpoint{}, err
	}
	if len(description) > maxDescription {
		return sandbox.Checkpoint{}, fault.About(sandbox.ErrInvalid, "description", "is invalid: use up to %d bytes of text", maxDescription)
	}
	description = plain.Line(description, maxDescription)
	if label != "" {
		if err := sandbox.CheckLabel(label); err != nil {
			return sandbox.Checkpoint{}, err
		}
	}
	cost, err := c.read.CheckpointCost(ctx, s.ID)
	if err != nil {
		return sandbox.Checkpoint{}, err
	}
	b, err := c.vet(ctx, policy.Call{Verb: policy.VerbCreateCheckpoint, Owner: c.Owner, Sandbox: name, Needs: policy.Needs{Checkpoints: 1, Disk: cost}})
	if err != nil {
		return sandbox.Checkpoint{}, err
	}
	defer b.done()
	if label != "" {
		return b.checkpoint(ctx, s.ID, label, description)
	}
	have, err := b.Checkpoints(ctx, s.ID)
	if err != nil {
		return sandbox.Checkpoint{}, err
	}
	// Another one may take the same label at the same time; the next number is then free.
	for n := len(have) + 1; ; n++ {
		c, err := b.checkpoint(ctx, s.ID, "checkpoint-"+strconv.Itoa(n), description)
		if !errors.Is(err, sandbox.ErrExists) || n > len(have)+20 {
			return c, err
		}
	}
}

// Checkpoints returns those of a sandbox, the oldest first.
func (m *Manager) Checkpoints(ctx context.Context, caller Caller, name string) ([]sandbox.Checkpoint, error) {
	c := m.begin(caller)
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbListCheckpoints, Owner: c.Owner, Sandbox: name}, name)
	if err != nil {
		return nil, err
	}
	return b.Checkpoints(ctx, s.ID)
}
