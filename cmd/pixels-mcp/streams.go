package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"pixels/internal/server"
	"pixels/internal/streams"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// streamer does what no tool does: it joins streams with what runs in a sandbox.
type streamer interface {
	Stream(ctx context.Context, r manager.ExecRequest, s manager.Streams) (manager.StreamResult, error)
	Console(ctx context.Context, r manager.ConsoleRequest, s manager.Streams) (int, error)
	StartRun(ctx context.Context, r manager.ExecRequest) (id string, err error)
	Runs(ctx context.Context, name string) ([]sandbox.Run, error)
	RunOutput(ctx context.Context, id string, q sandbox.RunQuery) (sandbox.Run, error)
	Sessions(ctx context.Context, name, user string) ([]sandbox.Session, error)
}

// local does it in this process.
type local struct{ v *verbs }

func (l local) Stream(ctx context.Context, r manager.ExecRequest, s manager.Streams) (manager.StreamResult, error) {
	return l.v.session.Manager.Stream(ctx, l.v.caller(), r, s)
}

func (l local) Console(ctx context.Context, r manager.ConsoleRequest, s manager.Streams) (int, error) {
	return l.v.session.Manager.Console(ctx, l.v.caller(), r, s)
}

func (l local) StartRun(ctx context.Context, r manager.ExecRequest) (string, error) {
	return l.v.session.Manager.StartRun(ctx, l.v.caller(), r)
}

func (l local) Runs(ctx context.Context, name string) ([]sandbox.Run, error) {
	return l.v.session.Manager.Runs(ctx, l.v.caller(), name)
}

func (l local) RunOutput(ctx context.Context, id string, q sandbox.RunQuery) (sandbox.Run, error) {
	return l.v.session.Manager.RunOutput(ctx, l.v.caller(), id, q)
}

func (l local) Sessions(ctx context.Context, name, user string) ([]sandbox.Session, error) {
	return l.v.session.Manager.Sessions(ctx, l.v.caller(), name, user)
}

// served is how another process is asked, the server that was named or this machine's service; nil where there is none, or who typed
// wants to do without.
func (a *cli) served() (*served, error) {
	if a.server.url != "" && (!a.direct || a.server.typed) {
		return a.servedElsewhere()
	}
	if a.direct || !serviceOf(a.servicePath) {
		return nil, nil
	}
	if user := localUser(); a.owner != user {
		return nil, usageError{fmt.Errorf("this machine's service sees that you are %s: --owner (and PIXELS_OWNER) can't say otherwise", user)}
	}
	dial := func(ctx context.Context) (net.Conn, error) { return server.DialSocket(ctx, a.servicePath) }
	open := func(ctx context.Context) (*server.Client, error) { return server.Dial(ctx, a.servicePath) }
	return &served{streams.NewClient(dial, a.woken), open, a.config.SessionEnv}, nil
}

// servedElsewhere is how the server of another machine is asked.
func (a *cli) servedElsewhere() (*served, error) {
	if user := localUser(); a.owner != user {
		return nil, usageError{errors.New("the token says whose the sandboxes are: --owner (and PIXELS_OWNER) can't say otherwise")}
	}
	r, err := a.server.remote()
	if err != nil {
		return nil, err
	}
	return &served{streams.NewRemote(r.Base(), r.Header(), r.Client(), r.TLS, server.Refused, a.woken), r.Dial, a.config.SessionEnv}, nil
}

// served has the service do it, with the variables of this process that are kept nowhere: the service has others.
type served struct {
	*streams.Client
	open   func(ctx context.Context) (*server.Client, error) // a session of MCP
	unkept map[string]string
}

func (s served) Stream(ctx context.Context, r manager.ExecRequest, to manager.Streams) (manager.StreamResult, error) {
	r.Unkept = s.unkept
	return s.Client.Stream(ctx, r, to)
}

func (s served) Console(ctx context.Context, r manager.ConsoleRequest, to manager.Streams) (int, error) {
	r.Unkept = s.unkept
	return s.Client.Console(ctx, r, to)
}

func (s served) StartRun(ctx context.Context, r manager.ExecRequest) (string, error) {
	r.Unkept = s.unkept
	return s.Client.StartRun(ctx, r)
}
