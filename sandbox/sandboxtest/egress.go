package sandboxtest

import (
	"context"
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
	return sandbox.Egress{Mode: b.Egress, Rules: presets.For(b.Egress, b.Rules).Rules, Enforced: true}, ctx.Err()
}

// Denials implements sandbox.Backend.
func (m *Memory) Denials(ctx context.Context, id string, _ time.Duration) ([]sandbox.Denial, error) {
	return nil, ctx.Err()
}
