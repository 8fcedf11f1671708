package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"strings"
	"time"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// Bounds of how long a command may run: one that is waited for, and one that goes on in the background.
const (
	DefaultTimeout = 30 * time.Second
	MaxTimeout     = 45 * time.Second
	MaxRunTimeout  = 30 * 24 * time.Hour
)

// ExecRequest asks for one command. Exactly one of Argv and Shell is set.
type ExecRequest struct {
	Name    string // of the sandbox
	Argv    []string
	Shell   string
	Cwd     string
	Env     map[string]string
	Unkept  map[string]string // more of it: what no list of processes, no record and no key must show
	User    string
	Stdin   string
	Open    bool          // of a run: its stdin goes on behind Stdin
	Timeout time.Duration // 0 means DefaultTimeout, and the longest that may be for a run

	Progress func(stream string, chunk []byte) // hears of output as it comes, from two goroutines at once; may be nil
}

// ExecResult is what a command left.
type ExecResult struct {
	ExitCode  int
	Stdout    string
	Stderr    string
	Truncated bool // the middle of an output was cut
	TimedOut  bool // ended by us with all its children; ExitCode is 124, as timeout(1) has it
	Duration  time.Duration
	Denied    []sandbox.Denial // connections out of the sandbox that were refused while it ran
}

func (r ExecRequest) check(most time.Duration) error {
	switch {
	case len(r.Argv) == 0 && strings.TrimSpace(r.Shell) == "":
		return fault.About(sandbox.ErrInvalid, "command", "is empty, which is invalid: give a line for the shell, or a list of program and arguments")
	case len(r.Argv) > 0 && r.Argv[0] == "":
		return fault.About(sandbox.ErrInvalid, "command", "is invalid: its first element, the program, is empty")
	case strings.ContainsRune(r.Shell+strings.Join(r.Argv, "")+r.Cwd+r.User, 0):
		return fault.About(sandbox.ErrInvalid, "command", "is invalid: it has a NUL byte")
	case r.Cwd != "" && !path.IsAbs(r.Cwd):
		return fault.About(sandbox.ErrInvalid, fmt.Sprintf("cwd %s", sandbox.Quote(r.Cwd)), "is invalid: give an absolute path inside the sandbox")
	case r.Timeout < 0 || r.Timeout > most:
		return fault.About(sandbox.ErrInvalid, fmt.Sprintf("timeout %s", r.Timeout), "is invalid: give up to %s", most)
	}
	if err := sandbox.CheckEnv(r.Unkept); err != nil {
		return err
	}
	return sandbox.CheckEnv(r.Env)
}

// Exec runs a command in a sandbox to its end. A command that fails is a result, not an error.
func (m *Manager) Exec(ctx context.Context, caller Caller, r ExecRequest) (ExecResult, error) {
	c := m.begin(caller)
	if err := r.check(MaxTimeout); err != nil {
		return ExecResult{}, err
	}
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbExec, Owner: c.Owner, Sandbox: r.Name, Needs: policy.Needs{Exec: r.most(), Root: r.root()}}, r.Name)
	if err != nil {
		return ExecResult{}, err
	}
	return c.run(ctx, b, c.Owner, s, r)
}

// CallVariable names the call of a command to all that the command starts, so that what a process reaches for leads back
// to the call.
const CallVariable = "PIXELS_CALL"

// command is what a backend is to run.
func (c *call) command(r ExecRequest) sandbox.Command {
	out := sandbox.Command{Argv: r.Argv, Shell: r.Shell, Cwd: r.Cwd, Env: map[string]string{}, Unkept: map[string]string{}, User: r.User}
	if c.Caller.Call != "" {
		out.Env[CallVariable] = c.Caller.Call
	}
	maps.Copy(out.Env, r.Env)
	maps.Copy(out.Unkept, c.defaults.SessionEnv)
	maps.Copy(out.Unkept, r.Unkept)
	maps.DeleteFunc(out.Unkept, func(name, _ string) bool { _, given := r.Env[name]; return given })
	out.KeepStdin = r.Open
	if r.Stdin != "" {
		out.Stdin = strings.NewReader(r.Stdin)
	}
	return out
}

// heard makes Progress hear of what is written to w.
func (r ExecRequest) heard(stream string, w io.Writer) io.Writer {
	if r.Progress == nil {
		return w
	}
	return progressWriter{w, func(chunk []byte) { r.Progress(stream, chunk) }}
}

type progressWriter struct {
	io.Writer
	hear func(chunk []byte)
}

func (w progressWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.hear(b)
	return n, err
}

// text is the command in one line, as the record has it.
func (r ExecRequest) text() string {
	if r.Shell != "" {
		return r.Shell
	}
	return strings.Join(r.Argv, " ")
}

// most is how long a command that is waited for may run; 0 when there is none.
func (r *ExecRequest) most() time.Duration {
	switch {
	case r == nil:
		return 0
	case r.Timeout == 0:
		return DefaultTimeout
	}
	return r.Timeout
}

// root tells whether the command is to run as root.
func (r *ExecRequest) root() bool {
	return r != nil && (r.User == "root" || strings.Trim(r.User, "0") == "" && r.User != "")
}

// run runs a checked and vetted request.
func (c *call) run(ctx context.Context, b *permit, owner string, s sandbox.Sandbox, r ExecRequest) (ExecResult, error) {
	done, err := c.use(ctx, b, s)
	if err != nil {
		return ExecResult{}, err
	}
	defer done()
	inTime, cancel := context.WithTimeout(ctx, r.most())
	defer cancel()
	var stdout, stderr headTail
	start := time.Now()
	command := c.command(r)
	command.Stdout, command.Stderr = r.heard("stdout", &stdout), r.heard("stderr", &stderr)
	code, err := b.Exec(inTime, s.ID, command)
	timedOut := ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded)
	if timedOut {
		code, err = 124, nil
	}
	record := ledger.Record{Kind: ledger.Executed, Owner: owner, Sandbox: s.Name, Lineage: s.Lineage, Tool: string(policy.VerbExec), Target: r.text(), Duration: time.Since(start)}
	if err != nil {
		record.Detail = err.Error()
		c.record(record)
		return ExecResult{}, err
	}
	record.Code = &code
	c.record(record)
	out, outCut := stdout.text()
	errOut, errCut := stderr.text()
	return ExecResult{
		ExitCode: code, Stdout: out, Stderr: errOut, Truncated: outCut || errCut, TimedOut: timedOut, Duration: time.Since(start),
		Denied: b.denials(ctx, s.ID, start),
	}, nil
}
