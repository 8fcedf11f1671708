package tools

import (
	"context"
	"errors"
	"time"

	"pixels/internal/view"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// taskGrace is how long a call that may go on as a task is waited for: what is done by then is answered at once.
const taskGrace = 500 * time.Millisecond

// TaskStatus is what a task is doing, in the words of the protocol.
type TaskStatus string

// The statuses of a task. One that failed is one whose call came to no result; a result that says that something failed is completed.
const (
	TaskWorking   TaskStatus = "working"
	TaskCompleted TaskStatus = "completed"
	TaskFailed    TaskStatus = "failed"
	TaskCancelled TaskStatus = "cancelled"
)

// Task is a call that went on behind its answer, as wait knows it: an operation, a command in the background, or a request.
type Task struct {
	ID      string
	Status  TaskStatus
	Started time.Time
	Ended   time.Time // zero while it works
	Result  Result    // once it is completed
	Why     string    // it failed
}

// ErrNoTask means that there is no task of an ID, or none any more.
var ErrNoTask = errors.New("there is no such task, or it ended over an hour ago")

// Task looks at one, after ending it where cancel says so; ErrNoTask.
func (s Session) Task(ctx context.Context, id string, cancel bool) (Task, error) {
	switch {
	case sandbox.IsRun(id):
		return s.runTask(ctx, id, cancel)
	case ledger.IsRequest(id):
		return s.requestTask(ctx, id)
	}
	k, err := s.operation(ctx, id, cancel, 0)
	if err != nil {
		return Task{}, noTask(err)
	}
	t := Task{ID: id, Status: TaskWorking, Started: k.started, Ended: k.ended, Result: k.result}
	switch {
	case k.lost || k.broke:
		t.Status, t.Why = TaskFailed, k.why()
	case k.over() && k.cancelled && k.result.Failed:
		t.Status = TaskCancelled
	case k.over():
		t.Status = TaskCompleted
	}
	return t, nil
}

func noTask(err error) error {
	if errors.Is(err, sandbox.ErrNotFound) || errors.Is(err, sandbox.ErrInvalid) || errors.Is(err, ledger.ErrNoRequest) {
		return ErrNoTask
	}
	return err
}

func (s Session) runTask(ctx context.Context, id string, cancel bool) (Task, error) {
	run, err := s.Manager.WaitRun(ctx, s.Caller, manager.WaitRequest{ID: id, Cancel: cancel})
	if err != nil {
		return Task{}, noTask(err)
	}
	t := Task{ID: id, Status: TaskWorking, Started: run.Started, Ended: run.Ended}
	out := view.RunOf(run.ExecResult)
	out.Operation = id
	t.Result = Result{Structured: out, Text: out.Text(), Failed: run.TimedOut}
	switch {
	case run.State == sandbox.RunLost:
		t.Status, t.Why = TaskFailed, "its sandbox was stopped, or the command's runner was killed"
	case run.State == sandbox.RunEnded && run.Cancelled:
		t.Status = TaskCancelled
	case run.State == sandbox.RunEnded:
		t.Status = TaskCompleted
	}
	return t, nil
}

// requestTask is the wait for a human's answer, whose result is that of wait. No client ends a question that others may have, too.
func (s Session) requestTask(ctx context.Context, id string) (Task, error) {
	r, err := s.Manager.WaitRequest(ctx, s.Caller, id, 0)
	if err != nil {
		return Task{}, noTask(err)
	}
	t := Task{ID: id, Status: TaskWorking, Started: r.At}
	if r.State.Ended() {
		found := s.waitFor(ctx, id, waitInput{}, 0)
		t.Status, t.Ended = TaskCompleted, r.DecidedAt
		t.Result = Result{Structured: waitOutput{Operations: []waitResult{found}}, Text: found.text}
	}
	return t, nil
}
