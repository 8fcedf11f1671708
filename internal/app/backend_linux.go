package app

import (
	"context"

	"pixels/incus"
	"pixels/internal/config"
	"pixels/sandbox"
)

// OpenBackend opens the backend that the configuration names.
func OpenBackend(c config.Config) (sandbox.Backend, error) { return incus.OpenBackend(c.IncusConfig()) }

// ensureHostRules sees that this machine's own firewall rules are in place.
func ensureHostRules(ctx context.Context, c config.Config) error {
	return incus.EnsureHostRules(ctx, c.IncusConfig())
}
