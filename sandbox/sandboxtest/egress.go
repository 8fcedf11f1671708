package sandboxtest

import (
	"context"
	"slices"
	"time"

	"pixels/egress"
	"pixels/sandbox"
)

// SetEgress implements sandbox.Backend.
func (m *Memory) SetEgress(ctx context.Context, id string, edit sandbox.EgressEdit) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return 0, err
	}
	mode, own, err := edit(b.Egress, b.Rules)
	if err != nil {
		return 0, err
	}
	b.Egress, b.Rules = mode, own
	return 0, ctx.Err()
}

// Egress implements sandbox.Backend. It has no network, so that whatever it says is enforced.
func (m *Memory) Egress(ctx context.Context, id string) (sandbox.Egress, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return sandbox.Egress{}, err
	}
	presets, err := egress.Shipped(nil)
	if err != nil {
		return sandbox.Egress{}, err
	}
	return sandbox.Egress{Mode: b.Egress, Rules: append(presets.For(b.Egress, b.Rules).Rules, b.once...), Enforced: true}, ctx.Err()
}

// GrantOnce implements sandbox.Backend.
func (m *Memory) GrantOnce(ctx context.Context, id string, grant egress.Grant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return err
	}
	b.once = slices.DeleteFunc(b.once, func(g egress.Grant) bool { return g.Once == grant.Once })
	if time.Now().Before(grant.Until) {
		b.once = append(b.once, grant)
	}
	return ctx.Err()
}

// Denials implements sandbox.Backend.
func (m *Memory) Denials(ctx context.Context, id string, _ time.Duration) ([]sandbox.Denial, error) {
	return nil, ctx.Err()
}

// Watch implements sandbox.Backend. It has no network: what Connect says is what it hears of.
func (m *Memory) Watch(ctx context.Context, hear func(sandbox.Connection)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-m.connections:
			if c.ID == "" {
				return sandbox.ErrUnavailable
			}
			hear(c)
		}
	}
}

// Connect has whoever watches hear that a sandbox of the name reaches for a domain and is held.
func (m *Memory) Connect(owner, name, domain string, port uint16) {
	m.Connected(owner, name, domain, port, sandbox.ConnectionHeld)
}

// Connected has whoever watches hear what became of a connection.
func (m *Memory) Connected(owner, name, domain string, port uint16, fate sandbox.Fate) {
	s, err := m.Get(context.Background(), owner, name)
	if err != nil {
		panic(err)
	}
	m.connections <- sandbox.Connection{ID: s.ID, Owner: owner, Sandbox: name, Lineage: s.Lineage, Fate: fate, Domain: domain, Port: port, From: 40000, At: time.Now()}
}

// Lose has a gateway be lost to whoever watches it.
func (m *Memory) Lose() { m.connections <- sandbox.Connection{} }

// Hold implements sandbox.Backend: it takes down what was said.
func (m *Memory) Hold(ctx context.Context, id, domain string, port uint16, d time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, err := m.find(id); err == nil {
		b.holds = append(b.holds, d)
	}
	return ctx.Err()
}

// Holds returns what was said of a sandbox's connections, by Hold.
func (m *Memory) Holds(owner, name string) []time.Duration {
	s, err := m.Get(context.Background(), owner, name)
	if err != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]time.Duration{}, m.boxes[s.ID].holds...)
}

// Process implements sandbox.Backend.
func (m *Memory) Process(ctx context.Context, id string, port uint16) (command, call string, err error) {
	return "7 curl", "", ctx.Err()
}

// Gateway implements sandbox.Backend.
func (m *Memory) Gateway() string { return "memory" }
