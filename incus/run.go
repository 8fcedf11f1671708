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
	argv, env, err := b.order(ctx, &inst.Instance, c, "spawn", "-id", run, "-timeout", timeout.String())
	if err != nil {
		return "", b.failed(err, "start a run in sandbox %s", name)
	}
	stderr := heard{most: saidMost}
	code, err := b.exec(ctx, id, api.InstanceExecPost{Command: argv, Environment: env, Cwd: "/"}, c.Stdin, nil, &stderr)
	if err == nil && code != 0 {
		err = errors.New(stderr.String())
	}
	return run, b.failed(err, "start a run in sandbox %s", name)
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
	stdout, stderr := heard{most: int(4*q.Limit)*4/3 + saidMost}, heard{most: saidMost}
	code, err := b.exec(ctx, id, api.InstanceExecPost{Command: argv, Cwd: "/"}, nil, &stdout, &stderr)
	var got guest.Run
	switch {
	case err != nil:
	case code == guest.ExitNoRun:
		err = fault.About(sandbox.ErrNotFound, fmt.Sprintf("run %q", run), "")
	case code != 0:
		err = errors.New(stderr.String())
	default:
		err = json.Unmarshal(stdout.b.Bytes(), &got)
	}
	if err != nil {
		return sandbox.Run{}, b.failed(err, "look at a run in sandbox %s", name)
	}
	return sandbox.Run{
		State: sandbox.RunState(got.State), ExitCode: got.ExitCode, TimedOut: got.TimedOut, Cancelled: got.Cancelled,
		Started: got.Started, Ended: got.Ended,
		Stdout: sandbox.RunOutput{Head: got.Stdout, Tail: got.StdoutTail, Size: got.StdoutSize},
		Stderr: sandbox.RunOutput{Head: got.Stderr, Tail: got.StderrTail, Size: got.StderrSize},
	}, nil
}
