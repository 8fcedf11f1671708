package tools

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

type waitInput struct {
	IDs     []string `json:"ids" jsonschema:"operations, as exec with background answers; requests, of allow_domain"`
	Timeout *float64 `json:"timeout,omitempty" jsonschema:"seconds, up to 40; 40 when left out, 0 only looks"`
	Cursor  string   `json:"cursor,omitempty" jsonschema:"for one command: read on from there"`
	Stdin   string   `json:"stdin,omitempty" jsonschema:"for one command with keep_stdin"`
	Signal  string   `json:"signal,omitempty" jsonschema:"to one command, as INT; EOF ends stdin"`
	Cancel  bool     `json:"cancel,omitempty" jsonschema:"end them, with all that they started"`
}

func (in waitInput) feed() sandbox.Feed { return sandbox.Feed{Stdin: in.Stdin, Signal: in.Signal} }

func (in waitInput) fed() bool { return in.feed() != sandbox.Feed{} }

type waitOutput struct {
	Operations []waitResult `json:"operations"`
	Running    int          `json:"running,omitempty" jsonschema:"how many have not ended"`
}

// otherResult is what another tool answers.
type otherResult any

// waitResult is what is known of one operation.
type waitResult struct {
	ID        string      `json:"id"`
	State     string      `json:"state" jsonschema:"running; ended; lost: its sandbox or server died; unknown: error says why"`
	Exec      *view.Run   `json:"exec,omitempty" jsonschema:"of a command: its outputs so far, and its exit code once it has ended"`
	Cancelled bool        `json:"cancelled,omitempty"`
	Cursor    string      `json:"cursor,omitempty" jsonschema:"of a command: where what comes next begins"`
	More      bool        `json:"more,omitempty" jsonschema:"of a command: there is more to read from cursor on already"`
	Result    otherResult `json:"result,omitempty" jsonschema:"of another tool's call: what it would have answered; of a request: as in allow_domain"`
	Error     string      `json:"error,omitempty"`

	text string
	err  error
}

var waitTool = define(Tool{
	Verb: policy.VerbWait, Title: "Wait for operations and requests", Wakes: true, Destructive: true, Tasks: true,
	Description: "Waits until operations have ended, or for a time, and returns what they left: of a command its exit code and outputs, " +
		"which are kept as long as the sandbox is; read long ones on by cursor.",
}, func(ctx context.Context, s Session, in waitInput) (waitOutput, Result, error) {
	seconds := callLimit.Seconds()
	if in.Timeout != nil {
		seconds = *in.Timeout
	}
	switch {
	case !(seconds >= 0 && seconds <= callLimit.Seconds()):
		return waitOutput{}, Result{}, fmt.Errorf("the argument \"timeout\" is %v; give 0 to %v seconds, and call again for longer", seconds, callLimit.Seconds())
	case len(in.IDs) == 0 || len(in.IDs) > manager.MaxClones:
		return waitOutput{}, Result{}, fmt.Errorf("the argument \"ids\" has %d elements; give 1 to %d", len(in.IDs), manager.MaxClones)
	case (in.Cursor != "" || in.fed()) && (len(in.IDs) > 1 || !sandbox.IsRun(in.IDs[0])):
		return waitOutput{}, Result{}, errors.New("the arguments \"cursor\", \"stdin\" and \"signal\" are for one command; call wait for each by itself")
	}
	if s.AsTask && len(in.IDs) == 1 && ledger.IsRequest(in.IDs[0]) {
		seconds = min(seconds, taskGrace.Seconds())
	}
	out := waitOutput{Operations: make([]waitResult, len(in.IDs))}
	var wg sync.WaitGroup
	var telling sync.Mutex
	ended := 0
	if s.Progress != nil && len(in.IDs) > 1 {
		s.Progress(fmt.Sprintf("waiting for %d", len(in.IDs)), 0, len(in.IDs))
	}
	for i, id := range in.IDs {
		wg.Go(func() {
			r := s.waitFor(ctx, id, in, time.Duration(seconds*float64(time.Second)))
			telling.Lock()
			defer telling.Unlock()
			if out.Operations[i] = r; s.Progress != nil && len(in.IDs) > 1 && r.State != "running" {
				ended++
				s.Progress(fmt.Sprintf("%s has %s, %d of %d", id, r.State, ended, len(in.IDs)), ended, len(in.IDs))
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return waitOutput{}, Result{}, err
	}
	var trial manager.Trial
	if first := out.Operations[0].err; first != nil && in.fed() || errors.Is(first, sandbox.ErrDenied) || errors.As(first, &trial) {
		return waitOutput{}, Result{}, first
	}
	var lines []string
	unknown := 0
	for _, r := range out.Operations {
		if r.State == "running" {
			out.Running++
		}
		if r.State == "unknown" {
			unknown++
		}
		lines = append(lines, fmt.Sprintf("--- %s: %s", r.ID, r.State), r.text)
	}
	result := Result{Text: strings.Join(lines, "\n"), Next: out.next(), Failed: unknown == len(in.IDs)}
	if s.AsTask && len(in.IDs) == 1 && ledger.IsRequest(in.IDs[0]) && out.Running > 0 {
		result.Operation = in.IDs[0]
	}
	return out, result, nil
})

// next is how to wait on for those that have not ended, or to read on.
func (o waitOutput) next() string {
	var ids []string
	for _, r := range o.Operations {
		if r.State == "running" || r.More {
			ids = append(ids, r.ID)
		}
	}
	call := waitCall(ids...)
	if len(o.Operations) == 1 && call != "" && o.Operations[0].Cursor != "" {
		call += fmt.Sprintf(" and cursor %q", o.Operations[0].Cursor)
	}
	return call
}

// waitFor waits for one operation.
func (s Session) waitFor(ctx context.Context, id string, in waitInput, wait time.Duration) waitResult {
	unknown := func(err error) waitResult {
		return waitResult{ID: id, State: "unknown", Error: view.Error(err, s.Audience), text: view.Error(err, s.Audience), err: err}
	}
	if sandbox.IsRun(id) {
		run, err := s.Manager.WaitRun(ctx, s.Caller, manager.WaitRequest{ID: id, Wait: wait, Cursor: in.Cursor, Cancel: in.Cancel, Feed: in.feed()})
		if err != nil {
			return unknown(err)
		}
		r := waitResult{ID: id, State: string(run.State), Cancelled: run.Cancelled, Cursor: run.Cursor, More: run.More}
		o := view.RunOf(run.ExecResult)
		if run.State == sandbox.RunRunning {
			o.ExitCode = nil
		}
		r.Exec = &o
		r.text = o.Text()
		if r.More {
			r.text += "\n[there is more]"
		}
		return r
	}
	if ledger.IsRequest(id) {
		r, err := s.Manager.WaitRequest(ctx, s.Caller, id, wait)
		if err != nil {
			return unknown(err)
		}
		out := waitResult{ID: id, State: "running", Result: view.RequestOf(r), text: view.RequestLine(r)}
		if r.State.Ended() {
			out.State = "ended"
		}
		return out
	}
	k, err := s.operation(ctx, id, in.Cancel, wait)
	if err != nil {
		return unknown(err)
	}
	r := waitResult{ID: id, State: "ended", Cancelled: in.Cancel, Result: k.result.Structured, text: k.result.Text}
	switch {
	case k.lost:
		r.State, r.Error = "lost", k.why()+": list_sandboxes shows what there is; then call again for what is missing"
		r.text = r.Error
	case !k.over():
		r.State, r.text = "running", fmt.Sprintf("%s, begun %s ago", k.tool, view.Ago(k.started))
	case k.result.Structured == nil:
		r.Error = k.result.Text
	}
	return r
}
