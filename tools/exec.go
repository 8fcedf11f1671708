package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// command is a line for the shell, or a program with its arguments.
type command struct {
	shell string
	argv  []string
}

// UnmarshalJSON reads a string or a list of strings.
func (c *command) UnmarshalJSON(b []byte) error {
	switch b = bytes.TrimSpace(b); {
	case string(b) == "null":
		return nil
	case b[0] == '"':
		return json.Unmarshal(b, &c.shell)
	case b[0] == '[' && json.Unmarshal(b, &c.argv) == nil && len(c.argv) > 0:
		return nil
	}
	return errors.New(`the argument "command" is neither a string for the shell nor a list of strings: the program and its arguments`)
}

type execInput struct {
	Name       string            `json:"name"`
	Command    command           `json:"command" jsonschema:"a string runs in bash; a list is a program and its arguments, without a shell"`
	Cwd        string            `json:"cwd,omitempty" jsonschema:"absolute path; the user's home when left out"`
	Env        map[string]string `json:"env,omitempty"`
	User       string            `json:"user,omitempty" jsonschema:"pixel when left out; root works too"`
	Stdin      string            `json:"stdin,omitempty"`
	Timeout    float64           `json:"timeout,omitempty" jsonschema:"seconds; 30 when left out, as long as may be in the background. Over 45 it goes on in the background"`
	Background bool              `json:"background,omitempty" jsonschema:"answers an operation for wait at once; it outlives this server"`
	KeepStdin  bool              `json:"keep_stdin,omitempty" jsonschema:"in the background: wait writes more to it"`
}

var execTool = define(Tool{
	Verb: policy.VerbExec, Title: "Run a command", Wakes: true, Destructive: true, Tasks: true,
	Description: "Runs a command in a sandbox, as the user pixel (who may use sudo), and returns exit code and output. " +
		"A command that fails is a result. At the timeout all that it started is ended. Of long output both ends are kept. " +
		"For servers and long work set background, and use wait.",
}, func(ctx context.Context, s Session, in execInput) (view.Run, Result, error) {
	most := manager.MaxRunTimeout.Seconds()
	if math.IsNaN(in.Timeout) || in.Timeout < 0 || in.Timeout > most {
		return view.Run{}, Result{}, fmt.Errorf("the argument \"timeout\" is %v; give up to %v seconds", in.Timeout, most)
	}
	r := manager.ExecRequest{
		Name: in.Name, Argv: in.Command.argv, Shell: in.Command.shell, Cwd: in.Cwd, Env: in.Env, User: in.User, Stdin: in.Stdin,
		Open:    in.KeepStdin,
		Timeout: time.Duration(in.Timeout * float64(time.Second)),
	}
	if in.KeepStdin && !in.Background {
		return view.Run{}, Result{}, errors.New("the argument \"keep_stdin\" goes with background: nobody else writes there while the call waits")
	}
	if in.Background || s.AsTask || r.Timeout > manager.MaxTimeout {
		if s.AsTask && !in.Background && r.Timeout == 0 {
			r.Timeout = manager.DefaultTimeout
		}
		return s.execBehind(ctx, r, !in.Background)
	}
	if s.Progress != nil {
		told := &teller{tell: func(message string) { s.Progress(message, 0, 0) }}
		defer told.stop()
		r.Progress = told.hear
	}
	ran, err := s.Manager.Exec(ctx, s.Caller, r)
	if err != nil {
		return view.Run{}, Result{}, err
	}
	out := view.RunOf(ran)
	return out, Result{Text: out.Text(), Failed: ran.TimedOut}, nil
})

// execBehind runs a command in the background, and waits for it for a while when it is asked to.
func (s Session) execBehind(ctx context.Context, r manager.ExecRequest, wait bool) (view.Run, Result, error) {
	id, err := s.Manager.StartRun(ctx, s.Caller, r)
	if err != nil {
		return view.Run{}, Result{}, err
	}
	if !wait {
		return view.Run{Operation: id}, Result{Text: "it runs in the background, as the operation " + id, Next: waitCall(id)}, nil
	}
	limit := callLimit
	if s.AsTask {
		limit = taskGrace
	}
	run, err := s.Manager.WaitRun(ctx, s.Caller, manager.WaitRequest{ID: id, Wait: limit})
	if ctx.Err() != nil {
		// The caller has given up, and what it started must not go on.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_, err := s.Manager.WaitRun(end, s.Caller, manager.WaitRequest{ID: id, Cancel: true})
		return view.Run{}, Result{}, errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return view.Run{}, Result{}, fmt.Errorf("the command runs as the operation %s, and waiting for it failed: %w", id, err)
	}
	out := view.RunOf(run.ExecResult)
	out.Operation = id
	result := Result{Text: out.Text(), Failed: run.TimedOut}
	if run.State == sandbox.RunRunning {
		out.ExitCode, result.Next, result.Operation = nil, waitCall(id), id
	}
	return out, result, nil
}

// teller passes output on as progress, a few times a second at most.
type teller struct {
	tell func(message string)

	mu      sync.Mutex
	text    []byte
	timer   *time.Timer
	stopped bool
}

// tellEvery is how often, and tellMost the bytes of output in one message; more is told by its end.
const (
	tellEvery = 250 * time.Millisecond
	tellMost  = 2000
)

func (t *teller) hear(_ string, chunk []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, chunk...)
	if extra := len(t.text) - tellMost; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
	if t.timer == nil && !t.stopped {
		t.timer = time.AfterFunc(tellEvery, t.flush)
	}
}

func (t *teller) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = nil
	if len(t.text) > 0 && !t.stopped {
		t.tell(strings.ToValidUTF8(string(t.text), "\uFFFD"))
		t.text = t.text[:0]
	}
}

// stop tells nothing more: the result has all.
func (t *teller) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
	}
}
