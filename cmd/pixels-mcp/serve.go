package main

import (
	"io"
	"os/signal"
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
			session := tools.Session{Manager: sandbox.NewManager(backend, a.config.SandboxDefaults()), Owner: a.owner}
			return server.New(buildVersion(), session, logger(a.err)).Serve(cmd.Context(), a.in, a.out)
		},
	}
	cmd.Flags().Bool("stdio", true, "serve on stdin and stdout, which is the only way there is so far")
	_ = cmd.Flags().MarkHidden("stdio") // clients that pass it by habit are right
	return cmd
}

// logger writes structured lines to stderr, where a client's log takes them up.
func logger(w io.Writer) zerolog.Logger {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	return zerolog.New(w).With().Timestamp().Logger()
}
