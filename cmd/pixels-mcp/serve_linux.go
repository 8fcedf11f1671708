package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"pixels/internal/app"
	"pixels/internal/oauth"
	"pixels/internal/program"
	"pixels/internal/server"
	"pixels/internal/streams"
	"pixels/internal/web"
	"pixels/policy"
	"pixels/sandbox/manager"
	"pixels/tools"
)

// serving says how the tools are served.
type serving struct {
	socket, page, bridge string
	pageURL              string // of a page that another process serves
	http                 overHTTP
	offered              offered
}

func (a *cli) serveCommand() *cobra.Command {
	var s serving
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the MCP tools, on stdin and stdout or by HTTP",
		Long: "serve answers an MCP client on stdin and stdout until stdin ends; it logs to stderr. A client starts it: it\n" +
			"is what to name as the command in the client's configuration. Incus need not run yet when it starts.\n" +
			"Where `" + program.Name + " setup --service` has installed a service, it passes on to that what it hears, and does nothing itself.\n\n" +
			"With --http it serves clients by HTTP instead, each with a token that `" + program.Name + " token create` makes: MCP at /mcp, and at /sse\n" +
			"for old clients.",
		Example: "  " + program.Name + " serve\n  " + program.Name + " serve --http 127.0.0.1:8765",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), s) },
	}
	f := cmd.Flags()
	f.StringVar(&s.socket, "socket", "", "serve on a Unix socket at `path`, each connection for the user at its other end")
	f.StringVar(&s.page, "web", "", "serve the page, too, on an `address` such as 127.0.0.1:7467")
	f.StringVar(&s.pageURL, "page", "", "`URL` of the page, where another process serves it: clients that ask for a token send people there")
	f.StringVar(&s.bridge, "bridge", "", "pass on to the service on a Unix socket at `path` (default that of this machine's service, where there is one)")
	f.StringVar(&s.http.address, "http", "", "serve by HTTP on an `address` such as 127.0.0.1:8765, or unix:PATH")
	s.http.flags(cmd)
	s.offered.flags(f)
	f.Bool("stdio", true, "serve on stdin and stdout, as without --socket and --http")
	_ = f.MarkHidden("stdio") // clients that pass it by habit are right
	return cmd
}

func (a *cli) serve(ctx context.Context, s serving) error {
	if err := s.http.check(); err != nil {
		return err
	}
	only, err := s.offered.tools()
	if err != nil {
		return err
	}
	if s.bridge == "" && s.socket == "" && s.http.address == "" && !a.direct && serviceOf(server.Socket) {
		s.bridge = server.Socket
	}
	if s.bridge != "" {
		if only != nil {
			return usageError{fmt.Errorf("this machine's service offers what its policy says: --read-only and --toolsets need --direct, or a token that has them")}
		}
		return server.BridgeSocket(ctx, s.bridge, a.in, a.raw)
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
	defer inBackground(ctx, func(context.Context) {
		for _, text := range a.elsewhere() {
			log.Warn().Msg(text)
		}
	})()
	defer opened.KeepUp(ctx, log)()
	operating, endOperations := context.WithCancel(ctx)
	operations := tools.NewOperations(operating)
	defer operations.Wait()
	defer endOperations()
	session := tools.Session{Manager: opened.Manager, Operations: operations, Caller: manager.Agent(a.owner)}
	if only != nil {
		session.Caller.Caps = &policy.Caps{Holder: a.owner, Limits: policy.Limits{Tools: only}}
	}
	shared := s.page != "" && s.page == s.http.address
	if s.page != "" && !shared {
		stop, err := a.servePage(ctx, s.page, opened.Door.Human("web"), opened.Ledger.Path(), log)
		if err != nil {
			return err
		}
		defer stop()
	}
	if s.socket == "" && s.http.address == "" {
		return server.New(buildVersion(), session, log).Serve(ctx, a.in, a.raw)
	}
	// Each connection to the socket, and each request by HTTP, has an owner.
	caller := func(r *http.Request) manager.Caller {
		return server.Caller(r.Context(), manager.Caller{Channel: channel})
	}
	handler := streams.New(opened.Manager, caller, log)
	work, ctx := errgroup.WithContext(ctx)
	if s.http.address != "" {
		ready, err := s.http.listen()
		if err != nil {
			return err
		}
		secret, err := secretOf("metrics")
		if err != nil {
			return err
		}
		config := server.HTTPConfig{Version: buildVersion(), Base: session, Tokens: opened.Manager, Names: s.http.hosts(), Streams: handler, Metrics: secret, Log: log}
		if at := s.signIn(shared); at != nil {
			if config.OAuth, err = oauth.New(opened.Ledger, oauth.NewDocuments(), at, server.Spoken...); err != nil {
				return err
			}
		}
		if shared {
			page, err := newPage(opened.Door.Human("web"), s.http.names, log)
			if err != nil {
				return err
			}
			config.Page = page.Handler(ready.Addr())
			ready.told = append(ready.told, "page:  at the same address, for who has the token in "+tokenFile(opened.Ledger.Path(), "web"))
		}
		ready.told = append(ready.told, "metrics: at /metrics, for who has the token in "+tokenFile(opened.Ledger.Path(), "metrics"))
		for _, line := range ready.told {
			fmt.Fprintln(a.err, line)
		}
		work.Go(func() error {
			h := server.NewHTTP(config)
			defer h.Close()
			return h.Serve(ctx, ready)
		})
	}
	if s.socket != "" {
		work.Go(func() error {
			return server.ServeSocket(ctx, s.socket, buildVersion(), session, handler, log)
		})
	}
	return work.Wait()
}

func newPage(m *manager.Human, names []string, log zerolog.Logger) (*web.Server, error) {
	secret, err := webToken()
	if err != nil {
		return nil, err
	}
	return web.New(m, secret, names, func(err error) { log.Warn().Err(err).Msg("web") })
}

// servePage serves the page until stop is called. store is the path of the ledger.
func (a *cli) servePage(ctx context.Context, address string, m *manager.Human, store string, log zerolog.Logger) (stop func(), err error) {
	s, err := newPage(m, nil, log)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve the page: %w", err)
	}
	fmt.Fprintf(a.err, "page:  http://%s/, for who has the token in %s\n", listener.Addr(), tokenFile(store, "web"))
	return inBackground(ctx, func(ctx context.Context) {
		if err := s.Serve(ctx, listener); err != nil {
			log.Error().Err(err).Msg("web")
		}
	}), nil
}

// signIn tells the address of the page at which people answer clients that ask for a token, for an address of this server; it is nil
// where there is no page.
func (s *serving) signIn(shared bool) func(issuer string) string {
	at := strings.TrimSuffix(s.pageURL, "/")
	switch {
	case shared:
		return func(issuer string) string { return issuer }
	case at == "" && s.page == "":
		return nil
	case at == "":
		host, port, _ := net.SplitHostPort(s.page) // it is listened on
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		at = "http://" + net.JoinHostPort(host, port)
	}
	return func(string) string { return at }
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
