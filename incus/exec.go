package incus

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/lxc/incus/v6/shared/api"
	"golang.org/x/sys/unix"

	"pixels/internal/fault"
	"pixels/internal/guest"
	"pixels/sandbox"
)

// shellScript runs a line in bash where the image has it. Agents write bash, and /bin/sh is dash on Debian.
const shellScript = `[ -x /bin/bash ] && exec /bin/bash -c "$0"; exec /bin/sh -c "$0"`

// errNotRunning means that the instance has no processes to be joined.
var errNotRunning = errors.New("it is not running")

// youth is how long after its start an instance may refuse a command that it takes a moment later.
const youth = 5 * time.Second

// Exec implements sandbox.Backend.
func (b *Backend) Exec(ctx context.Context, id string, c sandbox.Command) (int, error) {
	k, err := b.execInstance(ctx, id)
	if err != nil {
		return 0, err
	}
	name := k.Config[nameKey]
	verb, extra := "exec", []string(nil)
	if c.Console != nil {
		verb, extra = "console", []string{"-session", c.Console.Session}
	} else if c.Terminal != nil {
		extra = []string{"-tty"}
	}
	argv, env, err := b.order(ctx, &k.Instance, c, verb, extra...)
	if err != nil {
		return 0, b.failed(err, "exec in sandbox %s", name)
	}
	if c.Terminal != nil {
		argv, err := b.handOver(ctx, id, argv, c.Unkept)
		if err != nil {
			return 0, b.failed(err, "exec in sandbox %s", name)
		}
		code, err := b.execOnTerminal(ctx, id, api.InstanceExecPost{Command: argv, Environment: env, Cwd: "/"}, c)
		if errors.Is(err, errNotRunning) {
			err = notForExec(name, sandbox.Stopped)
		}
		return code, b.failed(err, "exec in sandbox %s", name)
	}
	if c.Stdin == nil {
		all := maps.Clone(env)
		maps.Copy(all, c.Unkept)
		r := guest.SessionRequest{Args: argv[2:], Env: all}
		code, err := b.execInSession(ctx, id, argv[0], r, c.Stdout, c.Stderr)
		if !errors.Is(err, errNotTaken) {
			return code, b.failed(err, "exec in sandbox %s", name)
		}
	}
	for {
		code := 0
		handed, err := b.handOver(ctx, id, argv, c.Unkept)
		if err == nil {
			code, err = b.exec(ctx, id, api.InstanceExecPost{Command: handed, Environment: env, Cwd: "/"}, c.Stdin, c.Stdout, c.Stderr)
		}
		// The command did not run. In one that was just started it may the next time.
		if err == nil || !tooEarly(err) || c.Stdin != nil || time.Since(k.LastUsedAt).Abs() > youth || ctx.Err() != nil {
			if errors.Is(err, errNotRunning) {
				err = notForExec(name, sandbox.Stopped)
			}
			return code, b.failed(err, "exec in sandbox %s", name)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// order is how the program in the sandbox is told to run a command, and in which environment. extra are flags of its own
// for what is to be done with it.
func (b *Backend) order(ctx context.Context, inst *api.Instance, c sandbox.Command, verb string, extra ...string) (argv []string, env map[string]string, err error) {
	program, err := b.program(ctx, inst)
	if err != nil {
		return nil, nil, err
	}
	user := c.User
	if user == "" {
		user = sandbox.DefaultUser
	}
	who, err := b.account(ctx, inst, user)
	if err != nil {
		return nil, nil, err
	}
	env = map[string]string{
		"HOME": who.home, "USER": user, "LOGNAME": user, "LANG": "C.UTF-8", "SHELL": "/bin/bash",
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	maps.Copy(env, envOf(inst.Config))
	maps.Copy(env, c.Env)
	argv = append([]string{program, verb}, extra...)
	argv = append(argv, "-uid", strconv.FormatUint(uint64(who.uid), 10), "-gid", strconv.FormatUint(uint64(who.gid), 10), "-user", user, "-cwd", c.Cwd, "--")
	if c.Console != nil {
		return argv, env, nil
	}
	if c.Shell != "" {
		return append(argv, "/bin/sh", "-c", shellScript, c.Shell), env, nil
	}
	return append(argv, c.Argv...), env, nil
}

// handOver has the program in a sandbox keep variables that must not stand where a command is started, and returns the command with the
// name under which it finds them.
func (b *Backend) handOver(ctx context.Context, id string, argv []string, unkept map[string]string) ([]string, error) {
	if len(unkept) == 0 {
		return argv, nil
	}
	content, err := json.Marshal(unkept)
	if err != nil {
		return nil, err
	}
	name, stderr := strings.ToLower(rand.Text()), heard{most: saidMost}
	code, err := b.exec(ctx, id, api.InstanceExecPost{Command: []string{argv[0], "keep", name}, Cwd: "/"}, bytes.NewReader(content), nil, &stderr)
	if err == nil && code != 0 {
		err = fmt.Errorf("hand over its environment: %s", stderr.String())
	}
	return slices.Concat(argv[:2], []string{"-env", name}, argv[2:]), err
}

// execInstance returns an instance that runs: as it is known, or as it is now where it isn't known to run.
func (b *Backend) execInstance(ctx context.Context, id string) (*known, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k, err := b.cache.instance(ctx, id)
	if err != nil {
		return nil, b.failed(err, "exec")
	}
	if k != nil && k.StatusCode == api.Running {
		return k, nil
	}
	inst, _, err := b.server.with(ctx).GetInstance(id)
	if err != nil {
		return nil, b.failed(err, "exec in %s", id)
	}
	if inst.StatusCode != api.Running && inst.StatusCode != api.Ready {
		return nil, notForExec(inst.Config[nameKey], describe(inst).State)
	}
	return &known{Instance: *inst}, nil
}

func notForExec(name string, state sandbox.State) error {
	return fault.New(fault.State, fault.Sandbox(name), fmt.Sprintf("is %s: no command can run in it", state), fault.Hint{Action: fault.StartSandbox, Name: name})
}

// endTimeout bounds how long a command has to end once it is told to.
const endTimeout = 20 * time.Second

// exec runs a command to its end. When ctx ends first it signals the command's first process, which for those of order ends
// all that the command started, and returns ctx's error.
func (b *Backend) exec(ctx context.Context, id string, post api.InstanceExecPost, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	return b.execPatiently(ctx, id, post, stdin, stdout, stderr, nil, endTimeout)
}

// execOnTerminal is exec for a command that is to have a terminal.
func (b *Backend) execOnTerminal(ctx context.Context, id string, post api.InstanceExecPost, c sandbox.Command) (int, error) {
	t := c.Terminal
	post.Interactive, post.Width, post.Height = true, t.Size.Columns, t.Size.Rows
	if post.Environment["TERM"] = t.Type; t.Type == "" {
		post.Environment["TERM"] = "xterm"
	}
	return b.execPatiently(ctx, id, post, c.Stdin, c.Stdout, nil, t.Resized, endTimeout)
}

// execPatiently is exec which waits for so long, once ctx has ended, for the command to end.
func (b *Backend) execPatiently(ctx context.Context, id string, post api.InstanceExecPost, stdin io.Reader, stdout, stderr io.Writer, resized <-chan sandbox.TerminalSize, patience time.Duration) (int, error) {
	r, err := b.start(ctx, id, post, stdin, stdout, stderr)
	if err != nil {
		return 0, err
	}
	defer r.giveUp()
	for running := true; running; {
		select {
		case <-r.ended:
			running = false
		case size := <-resized:
			// That it fails means that the command has ended, or that Incus has; both show elsewhere.
			_ = r.control.WriteJSON(api.InstanceExecControl{Command: "window-resize", Args: map[string]string{"width": strconv.Itoa(size.Columns), "height": strconv.Itoa(size.Rows)}})
		case <-ctx.Done():
			running = false
			// As above.
			_ = r.control.WriteJSON(api.InstanceExecControl{Command: "signal", Signal: int(unix.SIGTERM)})
			if err := b.awaitEnd(r.ended, patience); err != nil {
				return 0, err
			}
		}
	}
	// The streams end with the operation, but for what is on its way. A server that died leaves them open for ever.
	broken := errors.New("its output did not come to an end")
	select {
	case broken = <-r.output:
	case <-time.After(5 * time.Second):
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	code, err := exitCode(r.op, r.err)
	if err == nil && broken != nil {
		return 0, broken
	}
	return code, err
}

// awaitEnd waits until a command that was told to end has ended. Its error is not that of a context, which would say that the
// command was ended.
func (b *Backend) awaitEnd(ended <-chan struct{}, patience time.Duration) error {
	hung := make(chan error, 1)
	if patience > answersWithin {
		ctx, cancel := context.WithTimeoutCause(context.Background(), answersWithin, noAnswer{answersWithin})
		defer cancel()
		go func() {
			if _, _, err := b.server.with(ctx).GetServer(); err != nil {
				hung <- err
			}
		}()
	}
	select {
	case <-ended:
		return nil
	case err := <-hung:
		return fmt.Errorf("the command was to be ended, and nobody knows whether it was: %w", b.config.unreachable(err))
	case <-time.After(patience):
		return fmt.Errorf("the command was to be ended, and did not end within %s: is the sandbox paused?", patience)
	}
}

// running is a command under way.
type running struct {
	ended   chan struct{} // closed when op and err say how it ended
	op      *api.Operation
	err     error
	output  chan error // tells once whether all output has come
	control *websocket.Conn
	giveUp  func() // stops waiting for its end
}

// start starts a command and waits for its end in the background.
func (b *Backend) start(ctx context.Context, id string, post api.InstanceExecPost, stdin io.Reader, stdout, stderr io.Writer) (*running, error) {
	op, streams, err := command(ctx, b.server, id, post)
	if err != nil {
		if notRunning(err) {
			return nil, errNotRunning
		}
		return nil, err
	}
	r := &running{ended: make(chan struct{}), output: make(chan error, 1), control: streams.control}
	patient, stop := context.WithCancel(context.Background())
	r.giveUp = func() {
		stop()
		streams.close()
	}
	go func() { r.output <- streams.carry(stdin, stdout, stderr) }()
	go func() {
		defer close(r.ended)
		r.op, r.err = wait(patient, b.server, op)
	}()
	return r, nil
}

// exitCode reads how a command ended. Incus calls the operation failed when the code is one of those that shells give for
// what they can't run.
func exitCode(op *api.Operation, err error) (int, error) {
	if op == nil {
		return 0, err
	}
	code, ok := op.Metadata["return"].(float64)
	switch {
	case ok && (err == nil || code == sandbox.ExitNotFound || code == sandbox.ExitNotExecutable):
		return int(code), nil
	case err != nil:
		return 0, err
	}
	return 0, fmt.Errorf("how the command ended is not in its operation (%v)", op.Metadata)
}

// account is who a command runs as.
type account struct {
	uid, gid uint32
	home     string
}

// account finds a user of an instance by name or number.
func (b *Backend) account(ctx context.Context, inst *api.Instance, user string) (account, error) {
	if user == "root" || user == "0" {
		return account{0, 0, "/root"}, nil
	}
	if user == sandbox.DefaultUser {
		if a, ok := parseAccount(strings.Split(inst.Config["image."+userProperty], ":")); ok {
			return a, nil
		}
	}
	file, what, err := b.server.with(ctx).GetInstanceFile(inst.Name, "/etc/passwd")
	if err != nil {
		return account{}, fmt.Errorf("look up user %s: %w", user, err)
	}
	if file == nil || what.Type != "file" {
		return account{}, fault.About(sandbox.ErrNotFound, fmt.Sprintf("user %q", user), "not found: /etc/passwd is a %s in the sandbox, not a file; root is always there", what.Type)
	}
	defer file.Close()
	for lines := bufio.NewScanner(io.LimitReader(file, maxPasswd)); lines.Scan(); {
		f := strings.Split(lines.Text(), ":")
		if len(f) < 6 || f[0] != user && f[2] != user {
			continue
		}
		if a, ok := parseAccount([]string{f[2], f[3], f[5]}); ok {
			return a, nil
		}
	}
	return account{}, fault.About(sandbox.ErrNotFound, fmt.Sprintf("user %q", user), "not found in its /etc/passwd: name another one, root is always there")
}

// maxPasswd bounds how much of /etc/passwd is read, in bytes.
const maxPasswd = 4 << 20

// parseAccount reads the numbers of user and group, and the home.
func parseAccount(f []string) (account, bool) {
	if len(f) != 3 {
		return account{}, false
	}
	uid, err := strconv.ParseUint(f[0], 10, 32)
	gid, err2 := strconv.ParseUint(f[1], 10, 32)
	return account{uint32(uid), uint32(gid), f[2]}, err == nil && err2 == nil
}
