// Package sandboxtest holds one suite that every sandbox.Backend must pass, and a Backend in memory that passes it, for
// tests of what lies above backends.
package sandboxtest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/owner"
	"pixels/sandbox"
)

// Image is the one image that a Memory has.
const Image = "pixels/base"

// Memory is a Backend whose sandboxes are maps of files, in which a shell interpreter runs a few programs. Nothing of the
// host can be reached from it.
type Memory struct {
	mu    sync.Mutex
	next  int
	boxes map[string]*box // by ID

	Cost int64 // of a checkpoint, in bytes of the owner's quota; as in pools that charge no sandbox for its checkpoints

	connections chan sandbox.Connection
}

var _ sandbox.Backend = (*Memory)(nil)

type box struct {
	sandbox.Sandbox
	env         map[string]string
	files       *files
	checkpoints []checkpoint
	runs        map[string]*run
	holds       []time.Duration
	once        []egress.Grant
	used        time.Time
	ctx         context.Context // ends with the sandbox, and ends what runs in it
	end         context.CancelFunc
}

type checkpoint struct {
	sandbox.Checkpoint
	files *files
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{boxes: map[string]*box{}, connections: make(chan sandbox.Connection, 100)}
}

// List implements sandbox.Backend.
func (m *Memory) List(ctx context.Context, owner string) ([]sandbox.Sandbox, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []sandbox.Sandbox{}
	for _, b := range m.boxes {
		if b.Owner == owner {
			out = append(out, b.Sandbox)
		}
	}
	slices.SortFunc(out, func(a, b sandbox.Sandbox) int { return strings.Compare(a.Name, b.Name) })
	return out, ctx.Err()
}

// Tree implements sandbox.Backend.
func (m *Memory) Tree(ctx context.Context, top string, _ bool) ([]sandbox.Sandbox, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []sandbox.Sandbox
	for _, b := range m.boxes {
		if owner.Under(b.Owner, top) {
			out = append(out, b.Sandbox)
		}
	}
	return out, ctx.Err()
}

// CheckpointsCost implements sandbox.Backend.
func (m *Memory) CheckpointsCost(context.Context) bool { return m.Cost > 0 }

// CheckpointCost implements sandbox.Backend.
func (m *Memory) CheckpointCost(context.Context, string) (int64, error) { return m.Cost, nil }

// Relatives implements sandbox.Backend.
func (m *Memory) Relatives(ctx context.Context, owner, lineage string) ([]sandbox.Sandbox, error) {
	list, err := m.List(ctx, owner)
	return slices.DeleteFunc(list, func(s sandbox.Sandbox) bool { return s.Lineage != lineage }), err
}

// Get implements sandbox.Backend.
func (m *Memory) Get(ctx context.Context, owner, name string) (sandbox.Sandbox, error) {
	list, err := m.List(ctx, owner)
	for _, s := range list {
		if s.Name == name {
			return s, err
		}
	}
	return sandbox.Sandbox{}, fmt.Errorf("sandbox %q %w", name, sandbox.ErrNotFound)
}

// Create implements sandbox.Backend.
func (m *Memory) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return sandbox.Sandbox{}, err
	}
	for _, b := range m.boxes {
		if b.Owner == spec.Owner && b.Name == spec.Name {
			return sandbox.Sandbox{}, fmt.Errorf("sandbox %q %w", spec.Name, sandbox.ErrExists)
		}
	}
	env, content, limits := map[string]string{}, newFiles(), spec.Limits
	if spec.SourceID != "" {
		source, err := m.find(spec.SourceID)
		if err != nil {
			return sandbox.Sandbox{}, err
		}
		env, content, limits = maps.Clone(source.env), source.files.clone(), limits.Or(source.Limits)
		if spec.SourceLabel != "" {
			_, c, err := m.checkpoint(spec.SourceID, spec.SourceLabel)
			if err != nil {
				return sandbox.Sandbox{}, err
			}
			content = c.files.clone()
		}
	} else if spec.Image != Image && spec.Image != "" {
		return sandbox.Sandbox{}, fmt.Errorf("image %q %w", spec.Image, sandbox.ErrNotFound)
	}
	maps.Copy(env, spec.Env)
	m.next++
	labels := map[string]string{}
	maps.Copy(labels, spec.Labels)
	b := &box{
		Sandbox: sandbox.Sandbox{
			Name: spec.Name, State: sandbox.Running, Owner: spec.Owner, From: spec.From, Egress: spec.Egress, Rules: spec.Rules,
			Labels: labels, CreatedAt: time.Now(), ExpiresAt: spec.ExpiresAt, Limits: limits, ID: "memory-" + strconv.Itoa(m.next),
		},
		env: env, files: content, runs: map[string]*run{}, used: time.Now(),
	}
	if spec.Egress != egress.None {
		b.Address = fmt.Sprintf("192.0.2.%d", m.next%254+1)
	}
	b.Lineage = cmp.Or(spec.Lineage, b.ID)
	b.ctx, b.end = context.WithCancel(context.Background())
	m.boxes[b.ID] = b
	return b.Sandbox, nil
}

// Destroy implements sandbox.Backend.
func (m *Memory) Destroy(ctx context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return err
	}
	b.end()
	delete(m.boxes, id)
	return ctx.Err()
}

// CreateCheckpoint implements sandbox.Backend.
func (m *Memory) CreateCheckpoint(ctx context.Context, id, label, description string) (sandbox.Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return sandbox.Checkpoint{}, err
	}
	if _, _, err := m.checkpoint(id, label); err == nil {
		return sandbox.Checkpoint{}, fmt.Errorf("checkpoint %q of sandbox %q %w", label, b.Name, sandbox.ErrExists)
	}
	c := checkpoint{sandbox.Checkpoint{Label: label, Description: description, CreatedAt: time.Now(), Cost: m.Cost}, b.files.clone()}
	b.checkpoints = append(b.checkpoints, c)
	return c.Checkpoint, ctx.Err()
}

// Checkpoints implements sandbox.Backend.
func (m *Memory) Checkpoints(ctx context.Context, id string) ([]sandbox.Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return nil, err
	}
	out := []sandbox.Checkpoint{}
	for _, c := range b.checkpoints {
		out = append(out, c.Checkpoint)
	}
	return out, ctx.Err()
}

// find returns a box; m.mu is held.
func (m *Memory) find(id string) (*box, error) {
	if b := m.boxes[id]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("sandbox %s %w", id, sandbox.ErrNotFound)
}

// checkpoint returns a checkpoint and its box; m.mu is held.
func (m *Memory) checkpoint(id, label string) (*box, checkpoint, error) {
	b, err := m.find(id)
	if err != nil {
		return nil, checkpoint{}, err
	}
	for _, c := range b.checkpoints {
		if c.Label == label {
			return b, c, nil
		}
	}
	return nil, checkpoint{}, fmt.Errorf("checkpoint %q of sandbox %q %w", label, b.Name, sandbox.ErrNotFound)
}

// SetState implements sandbox.Backend.
func (m *Memory) SetState(ctx context.Context, id string, state sandbox.State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case state == sandbox.Paused && b.State == sandbox.Stopped:
		return fmt.Errorf("sandbox %q is stopped, which is the %w to pause it", b.Name, sandbox.ErrState)
	case state == sandbox.Running && !b.DestroyedAt.IsZero():
		return fault.About(sandbox.ErrState, fault.Sandbox(b.Name), "is stopped, which is the wrong state: its lease is over")
	case state == sandbox.Stopped && b.State != sandbox.Stopped:
		b.end()
		b.ctx, b.end = context.WithCancel(context.Background())
	}
	b.State = state
	if state == sandbox.Running {
		b.Asleep, b.used = false, time.Now()
	}
	return nil
}

// Rename implements sandbox.Backend.
func (m *Memory) Rename(ctx context.Context, id, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return err
	}
	for _, other := range m.boxes {
		if other != b && other.Owner == b.Owner && other.Name == name {
			return fmt.Errorf("sandbox %q %w", name, sandbox.ErrExists)
		}
	}
	b.Name = name
	return ctx.Err()
}

// Resize implements sandbox.Backend.
func (m *Memory) Resize(ctx context.Context, id string, l sandbox.Limits) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return err
	}
	b.Limits = l.Or(b.Limits)
	return ctx.Err()
}

// SetExpiry implements sandbox.Backend.
func (m *Memory) SetExpiry(ctx context.Context, id string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return err
	}
	b.ExpiresAt, b.DestroyedAt = at, time.Time{}
	return ctx.Err()
}

// DeleteCheckpoint implements sandbox.Backend.
func (m *Memory) DeleteCheckpoint(ctx context.Context, id, label string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, _, err := m.checkpoint(id, label)
	if err != nil {
		return err
	}
	b.checkpoints = slices.DeleteFunc(b.checkpoints, func(c checkpoint) bool { return c.Label == label })
	return ctx.Err()
}

// Restore implements sandbox.Backend.
func (m *Memory) Restore(ctx context.Context, id, label string) (sandbox.Sandbox, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, c, err := m.checkpoint(id, label)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	if err := ctx.Err(); err != nil {
		return sandbox.Sandbox{}, err
	}
	b.end()
	delete(m.boxes, id)
	m.next++
	again := *b
	again.ID, again.State = "memory-"+strconv.Itoa(m.next), sandbox.Running
	again.runs = map[string]*run{}
	again.files = c.files.clone()
	again.ctx, again.end = context.WithCancel(context.Background())
	m.boxes[again.ID] = &again
	return again.Sandbox, nil
}

// Touch implements sandbox.Backend.
func (m *Memory) Touch(_ context.Context, id string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return false, nil
	}
	if !b.Asleep {
		b.used = time.Now()
	}
	return b.Asleep, nil
}

// Wake implements sandbox.Backend.
func (m *Memory) Wake(ctx context.Context, id string) error {
	m.mu.Lock()
	b, err := m.find(id)
	asleep := err == nil && b.Asleep
	m.mu.Unlock()
	if err != nil || !asleep {
		return err
	}
	return m.SetState(ctx, id, sandbox.Running)
}

// Sweep implements sandbox.Backend.
func (m *Memory) Sweep(ctx context.Context, rules sandbox.SweepRules) (swept sandbox.Swept, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stop := func(b *box) {
		b.end()
		b.ctx, b.end = context.WithCancel(context.Background())
		b.State = sandbox.Stopped
	}
	for id, b := range m.boxes {
		over := !b.ExpiresAt.IsZero() && time.Now().After(b.ExpiresAt)
		switch {
		case over && rules.StopAtEnd && b.DestroyedAt.IsZero():
			stop(b)
			b.DestroyedAt = time.Now().Add(sandbox.Grace)
			swept.Stopped = append(swept.Stopped, b.Sandbox)
		case over && time.Now().After(b.DestroyedAt):
			b.end()
			delete(m.boxes, id)
			swept.Destroyed = append(swept.Destroyed, b.Sandbox)
		case !over && rules.Idle > 0 && b.State == sandbox.Running && time.Since(b.used) >= rules.Idle && !b.works():
			stop(b)
			b.Asleep = true
			swept.Idle = append(swept.Idle, b.Sandbox)
		}
	}
	return swept, ctx.Err()
}

// works tells whether a run is under way.
func (b *box) works() bool {
	for _, r := range b.runs {
		r.mu.Lock()
		running := r.state.State == sandbox.RunRunning
		r.mu.Unlock()
		if running {
			return true
		}
	}
	return false
}

// Close implements sandbox.Backend.
func (m *Memory) Close() {}
