package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"pixels/internal/app"
	"pixels/internal/program"
	"pixels/internal/server"
	"pixels/internal/streams"
	"pixels/internal/web"
	"pixels/sandbox/manager"
	"pixels/tools"
)

func (a *cli) serveCommand() *cobra.Command {
	var socket, page, bridge string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the MCP tools on stdin and stdout",
		Long: "serve answers an MCP client on stdin and stdout until stdin ends; it logs to stderr. A client starts it: it\n" +
			"is what to name as the command in the client's configuration. Incus need not run yet when it starts.\n" +
			"Where `" + program.Name + " setup --service` has installed a service, it passes on to that what it hears, and does nothing itself.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if bridge == "" && socket == "" && !a.direct && serviceOf(server.Socket) {
				bridge = server.Socket
			}
			if bridge != "" {
				return server.Bridge(cmd.Context(), bridge, a.in, a.raw)
			}
			// A client that closes its end must not kill a call that still has to undo what it began.
			signal.Ignore(syscall.SIGPIPE)
			log := logger(a.err)
			for _, note := range a.config.Notes {
				log.Warn().Msg(note)
			}
			opened, err := app.Open(a.config, a.policyPath(), func(err error) { log.Error().Err(err).Msg("policy") })
			if err != nil {
				return err
			}
			defer opened.Close()
			log.Info().Msg(a.where())
			defer inBackground(cmd.Context(), func(context.Context) {
				for _, text := range a.elsewhere() {
					log.Warn().Msg(text)
				}
			})()
			defer opened.KeepUp(cmd.Context(), log)()
			operating, endOperations := context.WithCancel(cmd.Context())
			operations := tools.NewOperations(operating)
			defer operations.Wait()
			defer endOperations()
			session := tools.Session{Manager: opened.Manager, Operations: operations, Caller: manager.Agent(a.owner)}
			if page != "" {
				stop, err := a.servePage(cmd.Context(), page, opened.Door.Human("web"), log)
				if err != nil {
					return err
				}
				defer stop()
			}
			if socket != "" {
				caller := func(r *http.Request) manager.Caller {
					return server.Caller(r.Context(), manager.Caller{Channel: channel}) // each connection to the socket has an owner
				}
				return server.ServeSocket(cmd.Context(), socket, buildVersion(), session, streams.New(opened.Manager, caller, log), log)
			}
			return server.New(buildVersion(), session, log).Serve(cmd.Context(), a.in, a.raw)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "serve on a Unix socket at `path`, each connection for the user at its other end")
	cmd.Flags().StringVar(&page, "web", "", "serve the page, too, on an `address` such as 127.0.0.1:7467")
	cmd.Flags().StringVar(&bridge, "bridge", "", "pass on to the service on a Unix socket at `path` (default that of this machine's service, where there is one)")
	cmd.Flags().Bool("stdio", true, "serve on stdin and stdout, as without --socket")
	_ = cmd.Flags().MarkHidden("stdio") // clients that pass it by habit are right
	return cmd
}

// serviceOf tells whether there is a service's socket, of another user than this one.
func serviceOf(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) != os.Geteuid()
}

// servePage serves the page until stop is called.
func (a *cli) servePage(ctx context.Context, address string, m *manager.Human, log zerolog.Logger) (stop func(), err error) {
	secret, err := webToken()
	if err != nil {
		return nil, err
	}
	s, err := web.New(m, secret, nil, func(err error) { log.Warn().Err(err).Msg("web") })
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve the page: %w", err)
	}
	return inBackground(ctx, func(ctx context.Context) {
		if err := s.Serve(ctx, listener); err != nil {
			log.Error().Err(err).Msg("web")
		}
	}), nil
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

// logger writes structured lines to stderr, where a client's log takes them up.
func logger(w io.Writer) zerolog.Logger {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	return zerolog.New(w).With().Timestamp().Logger()
}
