package main

import (
	"context"
	"errors"
	"io"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"pixels/incus"
	"pixels/internal/server"
	"pixels/sandbox"
	"pixels/tools"
)

func (a *app) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the MCP tools on stdin and stdout",
		Long: "serve answers an MCP client on stdin and stdout until stdin ends; it logs to stderr. A client starts it: it\n" +
			"is what to name as the command in the client's configuration. Incus need not run yet when it starts.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			backend, err := incus.OpenBackend(a.config.IncusConfig())
			if err != nil {
				return err
			}
			// A client that closes its end must not kill a call that still has to undo what it began.
			signal.Ignore(syscall.SIGPIPE)
			defer backend.Close()
			log := logger(a.err)
			manager, done, err := a.manager(backend, func(err error) { log.Error().Err(err).Msg("policy") })
			if err != nil {
				return err
			}
			defer done()
			defer inBackground(cmd.Context(), func(ctx context.Context) { keepSwept(ctx, manager, log) })()
			defer inBackground(cmd.Context(), func(ctx context.Context) {
				manager.KeepWatched(ctx, func(err error) { log.Warn().Err(err).Msg("watch") })
			})()
			operating, endOperations := context.WithCancel(cmd.Context())
			operations := tools.NewOperations(operating)
			defer operations.Wait()
			defer endOperations()
			session := tools.Session{Manager: manager, Operations: operations, Owner: a.owner}
			return server.New(buildVersion(), session, log).Serve(cmd.Context(), a.in, a.out)
		},
	}
	cmd.Flags().Bool("stdio", true, "serve on stdin and stdout, which is the only way there is so far")
	_ = cmd.Flags().MarkHidden("stdio") // clients that pass it by habit are right
	return cmd
}

// inBackground does work until stop is called, which ends its context and waits for its end.
func inBackground(ctx context.Context, work func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() { work(ctx) })
	return func() {
		cancel()
		working.Wait()
	}
}

// keepSwept sweeps until ctx ends.
func keepSwept(ctx context.Context, m *sandbox.Manager, log zerolog.Logger) {
	unreachable := false // said once, not every few seconds
	m.KeepSwept(ctx, sandbox.SweepEvery, func(expired []sandbox.Sandbox, err error) {
		for _, box := range expired {
			log.Info().Str("sandbox", box.Name).Str("owner", box.Owner).Time("expired_at", box.ExpiresAt).Msg("lease over, destroyed")
		}
		if away := errors.Is(err, sandbox.ErrUnavailable); err != nil && !(away && unreachable) {
			log.Warn().Err(err).Msg("sweep")
			unreachable = away
		}
	})
}

// logger writes structured lines to stderr, where a client's log takes them up.
func logger(w io.Writer) zerolog.Logger {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	return zerolog.New(w).With().Timestamp().Logger()
}
