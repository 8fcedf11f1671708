package manager

import (
	"context"
	"time"

	"pixels/sandbox"
)

// SweepEvery is how often a server looks for leases that are over and for what killed processes left.
const SweepEvery = 15 * time.Second

// pruneEvery is how often old records are removed.
const pruneEvery = time.Hour

// KeepSwept sweeps at once and then every so often, until ctx ends. Servers that share a backend may all do so. report
// hears of sandboxes that were destroyed or stopped, and of failures.
func (m *Manager) KeepSwept(ctx context.Context, every time.Duration, report func(swept sandbox.Swept, err error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var pruned time.Time
	for {
		if now := time.Now(); now.Sub(pruned).Abs() > pruneEvery {
			pruned = now
			if err := m.gate.store.Prune(m.gate.policy.Now().Keep()); err != nil {
				report(sandbox.Swept{}, err)
			}
		}
		if err := m.gate.store.Tidy(); err != nil {
			report(sandbox.Swept{}, err)
		}
		swept, err := m.gate.backend.Sweep(ctx, m.defaults.Sweep)
		if ctx.Err() != nil {
			return
		}
		if len(swept.Destroyed)+len(swept.Stopped)+len(swept.Idle) > 0 || err != nil {
			report(swept, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
