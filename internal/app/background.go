package app

import (
	"context"
	"errors"
	"sync"

	"github.com/rs/zerolog"

	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// KeepUp does what a server does by itself, beside its calls, until stop is called, which waits for its end: it sweeps, watches
// connections, and sees that this machine's own firewall rules are in place.
func (a *App) KeepUp(ctx context.Context, log zerolog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() {
		if err := ensureHostRules(ctx, a.config); err != nil && ctx.Err() == nil {
			log.Warn().Err(err).Msg("this machine's own firewall rules")
		}
	})
	working.Go(func() { a.sweep(ctx, log) })
	working.Go(func() { a.Manager.KeepWatched(ctx, func(err error) { log.Warn().Err(err).Msg("watch") }) })
	return func() {
		cancel()
		working.Wait()
	}
}

func (a *App) sweep(ctx context.Context, log zerolog.Logger) {
	unreachable := false // said once, not every few seconds
	a.Manager.KeepSwept(ctx, manager.SweepEvery, func(swept sandbox.Swept, err error) {
		for _, box := range swept.Destroyed {
			log.Info().Str("sandbox", box.Name).Str("owner", box.Owner).Time("expired_at", box.ExpiresAt).Msg("lease over, destroyed")
		}
		for _, box := range swept.Stopped {
			log.Info().Str("sandbox", box.Name).Str("owner", box.Owner).Time("expired_at", box.ExpiresAt).Msg("lease over, stopped")
		}
		for _, box := range swept.Idle {
			log.Info().Str("sandbox", box.Name).Str("owner", box.Owner).Msg("not used, stopped until it is")
		}
		if away := errors.Is(err, sandbox.ErrUnavailable); err != nil && !(away && unreachable) {
			log.Warn().Err(err).Msg("sweep")
			unreachable = away
		}
	})
}
