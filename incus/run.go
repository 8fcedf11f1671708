package incus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/internal/guest"
	"pixels/sandbox"
)

// StartRun implements sandbox.Backend.
func (b *Backend) StartRun(ctx context.Context, id string, c sandbox.Command, timeout time.Duration) (string, error) {
	inst, err := b.execInstance(ctx, id)
	if err != nil {
		return "", err
	}
	name, run := inst.Config[nameKey], strings.ToLower(rand.Text())
	argv, env, err := b.order(ctx, &inst.Instance, c, "spawn", "-id", run, "-timeout", timeout.String(), "-feed="+strconv.FormatBool(c.KeepStdin))
	if err != nil {
		return "", b.failed(err, "start a run in sandbox %s", name)
	}
	if argv, err = b.handOver(ctx, id, argv, c.Unkept); err != nil {
		return "", b.failed(err, "start a run in sandbox %s", name)
	}
	stderr := heard{most: saidMost}
	code, err := b.exec(ctx, id, api.InstanceExecPost{Command: argv, Environment: env, Cwd: "/"}, c.Stdin, nil, &stderr)
	if err == nil && code != 0 {
		err = errors.New(stderr.String())
	}
	return run, b.failed(err, "start a run in sandbox %s", name)
}

// Feed implements sandbox.Backend.
func (b *Backend) Feed(ctx context.Context, id, run string, f sandbox.Feed) error {
	inst, err := b.execInstance(ctx, id)
	if err != nil {
		return err
	}
	name := inst.Config[nameKey]
	program, err := b.program(ctx, &inst.Instance)
	if err != nil {
		return b.failed(err, "write to a run in sandbox %s", name)
	}
	stderr := heard{most: saidMost}
	code, err := b.exec(ctx, id, api.InstanceExecPost{Command: []string{program, "feed", "-id", run, "-signal", f.Signal}, Cwd: "/"}, strings.NewReader(f.Stdin), nil, &stderr)
	switch {
	case err != nil:
		return b.failed(err, "write to a run in sandbox %s", name)
	case code == guest.ExitNoRun:
		return fault.About(sandbox.ErrNotFound, fmt.Sprintf("run %q", run), "")
	case code == guest.ExitNoInput:
		return fault.About(sandbox.ErrState, "the command", "has ended, or reads no stdin: exec keeps it open with keep_stdin")
	case code != 0:
		return fault.About(sandbox.ErrState, "the command", "could not be given that: %s", sandbox.Quote(stderr.String()))
	}
	return nil
}

// LookAtRun implements sandbox.Backend.
func (b *Backend) LookAtRun(ctx context.Context, id, run string, q sandbox.RunQuery) (sandbox.Run, error) {
	inst, err := b.execInstance(ctx, id)
	if err != nil {
		return sandbox.Run{}, err
	}
	name := inst.Config[nameKey]
	program, err := b.program(ctx, &inst.Instance)
	if err != nil {
		return sandbox.Run{}, b.failed(err, "look at a run in sandbox %s", name)
	}
	argv := []string{program, "wait", "-id", run, "-for", q.Wait.String(), "-most", strconv.FormatInt(q.Limit, 10),
		"-stdout", strconv.FormatInt(q.Stdout, 10), "-stderr", strconv.FormatInt(q.Stderr, 10), "-cancel=" + strconv.FormatBool(q.Cancel)}
	// The beginnings and ends of two outputs, in base64.
	var got guest.Run
	err = b.answer(ctx, id, argv, int(4*q.Limit)*4/3+saidMost, &got)
	if errors.Is(err, errNoRun) {
		err = fault.About(sandbox.ErrNotFound, fmt.Sprintf("run %q", run), "")
	}
	if err != nil {
		return sandbox.Run{}, b.failed(err, "look at a run in sandbox %s", name)
	}
	return runOf(got), nil
}

// errNoRun is what the program in the sandbox says where there is no such run.
var errNoRun = errors.New("there is no such run")

// answerTries is how often a program is asked that says nothing. It always says something; what it said was lost once in some
// thousand times on a busy machine, and the cause was not found.
const answerTries = 3

// answer has the program in a sandbox say something as JSON, of so many bytes at most. Asked again it must say the same.
func (b *Backend) answer(ctx context.Context, id string, argv []string, most int, out any) error {
	for try := 1; ; try++ {
		stdout, stderr := heard{most: most}, heard{most: saidMost}
		code, err := b.exec(ctx, id, api.InstanceExecPost{Command: argv, Cwd: "/"}, nil, &stdout, &stderr)
		switch {
		case err != nil:
			return err
		case code == guest.ExitNoRun:
			return errNoRun
		case code != 0:
			return errors.New(stderr.String())
		case stdout.b.Len() > 0 || try == answerTries:
			if err := json.Unmarshal(stdout.b.Bytes(), out); err != nil {
				return fmt.Errorf("what it said, in %d bytes, can't be read: %w", stdout.b.Len(), err)
			}
			return nil
		}
	}
}

func runOf(got guest.Run) sandbox.Run {
	return sandbox.Run{
		ID: got.ID, Command: got.Command,
		State: sandbox.RunState(got.State), ExitCode: got.ExitCode, TimedOut: got.TimedOut, Cancelled: got.Cancelled,
		Started: got.Started, Ended: got.Ended,
		Stdout: sandbox.RunOutput{Head: got.Stdout, Tail: got.StdoutTail, Size: got.StdoutSize},
		Stderr: sandbox.RunOutput{Head: got.Stderr, Tail: got.StderrTail, Size: got.StderrSize},
	}
}

// maxRuns bounds what is read of a sandbox's list of runs, in bytes.
const maxRuns = 256 << 10

// Runs implements sandbox.Backend.
func (b *Backend) Runs(ctx context.Context, id string) ([]sandbox.Run, error) {
	inst, err := b.execInstance(ctx, id)
	if err != nil {
		return nil, err
	}
	program, err := b.program(ctx, &inst.Instance)
	var got []guest.Run
	if err == nil {
		err = b.answer(ctx, id, []string{program, "runs"}, maxRuns, &got)
	}
	if err != nil {
		return nil, b.failed(err, "list the runs of sandbox %s", inst.Config[nameKey])
	}
	var out []sandbox.Run
	for _, r := range got {
		out = append(out, runOf(r))
	}
	return out, nil
}
