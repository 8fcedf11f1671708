package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"strings"
	"time"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// Exec implements sandbox.Backend.
func (m *Memory) Exec(ctx context.Context, id string, c sandbox.Command) (int, error) {
	l, err := m.life(id)
	if err != nil {
		return 0, err
	}
	if c.Terminal != nil || c.Console != nil {
		return 0, fault.Errorf(sandbox.ErrUnsupported, fault.Hint{}, "a terminal is %s in memory", sandbox.ErrUnsupported)
	}
	return l.exec(ctx, c)
}

// Sessions implements sandbox.Backend: it has no consoles.
func (m *Memory) Sessions(_ context.Context, id, _ string) ([]sandbox.Session, error) {
	_, err := m.life(id)
	return nil, err
}

// life is a box from one start to its stop.
type life struct {
	*box
	ctx   context.Context
	files *files
}

func (m *Memory) life(id string) (life, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err == nil && b.State != sandbox.Running {
		err = fmt.Errorf("sandbox %q is %s, which is the %w for exec", b.Name, b.State, sandbox.ErrState)
	}
	if err != nil {
		return life{}, err
	}
	return life{b, b.ctx, b.files}, nil
}

// pipe passes on what comes from r until the end that it returns is closed. The shell would make a pipe itself, and leave it open.
func pipe(r io.Reader) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(write, r) // a command may end without reading it
		_ = write.Close()
	}()
	return read, nil
}

// exec runs a command to its end.
func (b life) exec(ctx context.Context, c sandbox.Command) (int, error) {
	user := c.User
	if user == "" {
		user = sandbox.DefaultUser
	}
	home := map[string]string{"pixel": "/home/pixel", "root": "/root"}[user]
	if home == "" {
		return 0, fmt.Errorf("user %q %w in this sandbox", user, sandbox.ErrNotFound)
	}
	env := maps.Clone(b.env)
	env["HOME"], env["USER"], env["PATH"] = home, user, "/bin"
	maps.Copy(env, c.Env)
	maps.Copy(env, c.Unkept)
	var pairs []string
	for key, value := range env {
		pairs = append(pairs, key+"="+value)
	}
	cwd := c.Cwd
	if cwd == "" {
		cwd = home
	}
	line := c.Shell
	if len(c.Argv) > 0 {
		var words []string
		for _, word := range c.Argv {
			quoted, err := syntax.Quote(word, syntax.LangBash)
			if err != nil {
				return 0, fmt.Errorf("command: %w", err)
			}
			words = append(words, quoted)
		}
		line = strings.Join(words, " ")
	}
	prog, err := syntax.NewParser().Parse(strings.NewReader(line), "")
	if err != nil {
		fmt.Fprintln(orDiscard(c.Stderr), err)
		return 2, nil
	}
	stdin := io.Reader(bytes.NewReader(nil))
	if c.Stdin != nil {
		read, err := pipe(c.Stdin)
		if err != nil {
			return 0, err
		}
		defer read.Close()
		stdin = read
	}
	runner, err := interp.New(
		interp.StdIO(stdin, orDiscard(c.Stdout), orDiscard(c.Stderr)), interp.Env(expand.ListEnviron(pairs...)),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return b.program }),
		interp.OpenHandler(func(ctx context.Context, name string, flag int, _ os.FileMode) (io.ReadWriteCloser, error) {
			return b.redirect(absolute(interp.HandlerCtx(ctx).Dir, name), flag)
		}),
	)
	if err != nil {
		return 0, err
	}
	runner.Dir = cwd // interp.Dir would look for it on the host
	// What a command left in the background goes on after it, until the sandbox ends.
	running, cancel := context.WithCancel(b.ctx)
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	err = runner.Run(running, prog)
	var status interp.ExitStatus
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case b.ctx.Err() != nil:
		return 0, fmt.Errorf("sandbox %s ended while the command ran: %w", b.Name, sandbox.ErrNotFound)
	case errors.As(err, &status):
		return int(status), nil
	}
	return 0, err
}

// redirect opens a file for the shell.
func (b life) redirect(name string, flag int) (io.ReadWriteCloser, error) {
	if name == "/dev/null" {
		return &handle{files: b.files, node: &node{}}, nil
	}
	return b.files.open(name, flag&os.O_CREATE != 0, flag&os.O_TRUNC != 0, flag&os.O_APPEND != 0, 1000)
}

func absolute(dir, name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join(dir, name)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// program runs what is no builtin of the shell.
func (b life) program(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	switch args[0] {
	case "cat":
		if len(args) == 1 {
			_, err := io.Copy(hc.Stdout, hc.Stdin)
			return err
		}
		for _, name := range args[1:] {
			f, err := b.files.open(absolute(hc.Dir, name), false, false, false, 0)
			if err != nil {
				fmt.Fprintf(hc.Stderr, "cat: %s: No such file or directory\n", name)
				return interp.ExitStatus(1)
			}
			if _, err := io.Copy(hc.Stdout, f); err != nil {
				return err
			}
		}
	case "sleep":
		d, err := time.ParseDuration(args[1] + "s")
		if err != nil {
			return interp.ExitStatus(1)
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return ctx.Err()
		}
	case "hostname":
		fmt.Fprintln(hc.Stdout, b.Name)
	case "id":
		fmt.Fprintln(hc.Stdout, hc.Env.Get("USER").String())
	default:
		fmt.Fprintf(hc.Stderr, "%s: command not found\n", args[0])
		return interp.ExitStatus(sandbox.ExitNotFound)
	}
	return nil
}
