package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Streams are what a command is joined with while it runs.
type Streams struct {
	In       io.Reader // nil is an empty one
	Out, Err io.Writer
	Terminal *sandbox.Terminal // then all output comes to Out
}

// StreamResult is how a command ended whose output was passed on as it came.
type StreamResult struct {
	ExitCode int
	TimedOut bool // ended by us with all its children; ExitCode is 124
	Denied   []sandbox.Denial
}

// Stream runs a command in a sandbox to its end, byte for byte as its streams have it. Without a timeout it may last as long as the
// policy lets it. r.Stdin and r.Progress are not used.
func (m *Manager) Stream(ctx context.Context, caller Caller, r ExecRequest, s Streams) (StreamResult, error) {
	c := m.begin(caller)
	if err := r.check(MaxRunTimeout); err != nil {
		return StreamResult{}, err
	}
	if r.Timeout == 0 {
		r.Timeout = min(c.rules(c.Owner).MaxExec(), MaxRunTimeout)
	}
	command := c.command(r)
	return c.stream(ctx, r, command, s)
}

// ConsoleRequest asks for a shell in a sandbox.
type ConsoleRequest struct {
	Name    string
	Session string            // which is begun where there is none; empty for a shell that ends with its terminal
	User    string            // empty means sandbox.DefaultUser
	Unkept  map[string]string // as in ExecRequest
}

// Console joins streams with a shell in a sandbox. It returns the exit code: sandbox.ExitDetached when the session goes on, and none but
// 0 when it came to its own end.
func (m *Manager) Console(ctx context.Context, caller Caller, r ConsoleRequest, s Streams) (int, error) {
	c := m.begin(caller)
	if r.Session != "" {
		if err := sandbox.CheckSession(r.Session); err != nil {
			return 0, err
		}
	}
	if s.Terminal == nil {
		return 0, fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "a console without a terminal is invalid")
	}
	if err := sandbox.CheckEnv(r.Unkept); err != nil {
		return 0, err
	}
	e := ExecRequest{Name: r.Name, User: r.User, Unkept: r.Unkept, Timeout: min(c.rules(c.Owner).MaxExec(), MaxRunTimeout)}
	command := c.command(e)
	command.Console = &sandbox.Console{Session: r.Session}
	got, err := c.stream(ctx, e, command, s)
	return got.ExitCode, err
}

func (c *call) stream(ctx context.Context, r ExecRequest, command sandbox.Command, s Streams) (StreamResult, error) {
	b, box, err := c.vetted(ctx, policy.Call{Verb: policy.VerbExec, Owner: c.Owner, Sandbox: r.Name, Needs: policy.Needs{Exec: r.Timeout, Root: r.root()}}, r.Name)
	if err != nil {
		return StreamResult{}, err
	}
	done, err := c.use(ctx, b, box)
	if err != nil {
		return StreamResult{}, err
	}
	defer done()
	inTime, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	start := time.Now()
	outputs := Outputs{}
	command.Stdin, command.Stdout, command.Stderr, command.Terminal = s.In, outputs.To(s.Out), outputs.To(s.Err), s.Terminal
	record := ledger.Record{Kind: ledger.Executed, Owner: c.Owner, Sandbox: box.Name, Lineage: box.Lineage, Tool: string(policy.VerbExec), Target: r.text()}
	if command.Console != nil {
		record.Target = "console " + command.Console.Session
	}
	code, err := b.Exec(inTime, box.ID, command)
	if failed := outputs.Err(); err != nil && failed != nil && ctx.Err() == nil {
		err = failed // of the caller's, not of the sandbox
	}
	out := StreamResult{ExitCode: code, TimedOut: ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded)}
	if out.TimedOut {
		out.ExitCode, err = 124, nil
	}
	record.Duration = time.Since(start)
	if err != nil {
		record.Detail = err.Error()
		c.record(record)
		return StreamResult{}, err
	}
	record.Code = &out.ExitCode
	c.record(record)
	out.Denied = b.denials(ctx, box.ID, start)
	return out, nil
}

// Outputs are where the outputs of a command go. The first error of theirs is kept, so that it is not taken for one of what they come from.
type Outputs struct {
	mu    sync.Mutex
	first error
}

// Err is that error; nil without one.
func (o *Outputs) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first
}

// To is w, of whose errors is taken note; nil stays nil.
func (o *Outputs) To(w io.Writer) io.Writer {
	if w == nil {
		return nil
	}
	return output{o, w}
}

type output struct {
	of *Outputs
	io.Writer
}

func (o output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	if err != nil {
		o.of.mu.Lock()
		defer o.of.mu.Unlock()
		o.of.first = cmp.Or(o.of.first, fmt.Errorf("its output can't be written: %w", err))
	}
	return n, err
}

// Sessions returns the console sessions of a user in a sandbox, by name; user may be empty.
func (m *Manager) Sessions(ctx context.Context, caller Caller, name, user string) ([]sandbox.Session, error) {
	c := m.begin(caller)
	r := ExecRequest{User: user}
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbExec, Owner: c.Owner, Sandbox: name, Needs: policy.Needs{Root: r.root()}}, name)
	if err != nil {
		return nil, err
	}
	done, err := c.use(ctx, b, s)
	if err != nil {
		return nil, err
	}
	defer done()
	return b.Sessions(ctx, s.ID, user)
}
