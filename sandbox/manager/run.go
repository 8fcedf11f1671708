package manager

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// StartRun starts a command in the background and returns the ID of its run.
func (m *Manager) StartRun(ctx context.Context, caller Caller, r ExecRequest) (id string, err error) {
	c := m.begin(caller)
	if err := r.check(MaxRunTimeout); err != nil {
		return "", err
	}
	if r.Timeout == 0 {
		r.Timeout = min(c.rules(c.Owner).MaxExec(), MaxRunTimeout)
	}
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbExec, Owner: c.Owner, Sandbox: r.Name, Needs: policy.Needs{Exec: r.Timeout, Root: r.root()}}, r.Name)
	if err != nil {
		return "", err
	}
	done, err := c.use(ctx, b, s)
	if err != nil {
		return "", err
	}
	defer done()
	run, err := b.StartRun(ctx, s.ID, c.command(r), r.Timeout)
	if err != nil {
		return "", err
	}
	id = r.Name + "." + run
	c.record(ledger.Record{Kind: ledger.Executed, Owner: c.Owner, Sandbox: s.Name, Lineage: s.Lineage, Tool: string(policy.VerbExec), Target: r.text(), Detail: "begun, in the background, as " + id})
	return id, nil
}

// WaitRequest asks for a run.
type WaitRequest struct {
	ID     string
	Wait   time.Duration
	Cursor string // empty for the two ends of the outputs
	Cancel bool
	Feed   sandbox.Feed // what it is given first
}

// RunResult is a run as callers see it.
type RunResult struct {
	ExecResult
	State     sandbox.RunState
	Started   time.Time
	Ended     time.Time // zero while it runs
	Cancelled bool
	Cursor    string // to read on
	More      bool   // there is more to read at Cursor
}

// WaitRun returns a run once it has ended, or after a time.
func (m *Manager) WaitRun(ctx context.Context, caller Caller, r WaitRequest) (RunResult, error) {
	c := m.begin(caller)
	q := sandbox.RunQuery{Wait: r.Wait, Cancel: r.Cancel, Limit: keep, Stdout: -1, Stderr: -1}
	if r.Cursor != "" {
		if _, err := fmt.Sscanf(r.Cursor, "%d:%d", &q.Stdout, &q.Stderr); err != nil || q.Stdout < 0 || q.Stderr < 0 {
			return RunResult{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("cursor %s", sandbox.Quote(r.Cursor)), "is invalid: give one that wait answered")
		}
	}
	if r.Feed != (sandbox.Feed{}) {
		if err := c.feed(ctx, r.ID, r.Feed); err != nil {
			return RunResult{}, err
		}
	}
	b, s, got, err := c.lookAtRun(ctx, r.ID, q)
	if err != nil {
		return RunResult{}, err
	}
	out := RunResult{State: got.State, Started: got.Started, Ended: got.Ended, Cancelled: got.Cancelled, ExecResult: ExecResult{ExitCode: got.ExitCode, TimedOut: got.TimedOut}}
	ended := got.Ended
	if got.State != sandbox.RunEnded {
		ended = time.Now()
	}
	out.Duration = max(ended.Sub(got.Started), 0)
	cutOut, cutErr := false, false
	var atOut, atErr int64
	// What is missing in the middle of one output is read from there on, without the other one again.
	out.Stdout, atOut, cutOut = outputText(got.Stdout, q.Stdout, cursor(int64(len(got.Stdout.Head)), got.Stderr.Size))
	out.Stderr, atErr, cutErr = outputText(got.Stderr, q.Stderr, cursor(got.Stdout.Size, int64(len(got.Stderr.Head))))
	if r.Cursor == "" {
		out.Truncated = cutOut || cutErr
	} else {
		out.More = cutOut || cutErr
	}
	out.Cursor = cursor(atOut, atErr)
	out.Denied = b.denials(ctx, s.ID, got.Started)
	if got.State == sandbox.RunEnded && c.gate.first(r.ID) {
		c.record(ledger.Record{Kind: ledger.Executed, Owner: c.Owner, Sandbox: s.Name, Lineage: s.Lineage, Tool: string(policy.VerbExec), Detail: "ended: " + r.ID, Code: &got.ExitCode, Duration: out.Duration})
	}
	return out, nil
}

// feed gives a run more to read, and a signal. What a command reads may be commands: it is vetted as exec.
func (c *call) feed(ctx context.Context, id string, f sandbox.Feed) error {
	if err := f.Check(); err != nil {
		return err
	}
	name, run, err := splitRun(id)
	if err != nil {
		return err
	}
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbExec, Owner: c.Owner, Sandbox: name}, name)
	if err != nil {
		return err
	}
	done, err := c.use(ctx, b, s)
	if err != nil {
		return err
	}
	defer done()
	if err := b.Feed(ctx, s.ID, run, f); err != nil {
		return c.noRun(id, err)
	}
	c.record(ledger.Record{Kind: ledger.Executed, Owner: c.Owner, Sandbox: s.Name, Lineage: s.Lineage, Tool: string(policy.VerbExec), Target: f.Signal, Detail: fmt.Sprintf("%d bytes of stdin given to %s", len(f.Stdin), id)})
	return nil
}

func (*call) noRun(id string, err error) error {
	if errors.Is(err, sandbox.ErrNotFound) {
		return fault.About(sandbox.ErrNotFound, fmt.Sprintf("operation %q", id), "not found: the sandbox was restored or made anew since, or it ended long ago")
	}
	return err
}

// splitRun takes the ID that callers know a run by apart.
func splitRun(id string) (name, run string, err error) {
	name, run, _ = strings.Cut(id, ".")
	if sandbox.CheckName(name[strings.LastIndex(name, "/")+1:]) != nil || !runRule.MatchString(run) {
		err = fault.About(sandbox.ErrInvalid, fmt.Sprintf("id %s", sandbox.Quote(id)), "is invalid: give one that exec or another tool answered as its operation")
	}
	return name, run, err
}

// lookAtRun finds a run by the ID that callers know it by.
func (c *call) lookAtRun(ctx context.Context, id string, q sandbox.RunQuery) (*permit, sandbox.Sandbox, sandbox.Run, error) {
	fail := func(err error) (*permit, sandbox.Sandbox, sandbox.Run, error) {
		return nil, sandbox.Sandbox{}, sandbox.Run{}, err
	}
	name, run, err := splitRun(id)
	if err != nil {
		return fail(err)
	}
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbWait, Owner: c.Owner, Sandbox: name}, name)
	if err != nil {
		return fail(err)
	}
	done, err := c.use(ctx, b, s)
	if err != nil {
		return fail(err)
	}
	defer done()
	got, err := b.LookAtRun(ctx, s.ID, run, q)
	return b, s, got, c.noRun(id, err)
}

// RunOutput returns a part of the outputs of a run, byte for byte, once it has ended or after a time.
func (m *Manager) RunOutput(ctx context.Context, caller Caller, id string, q sandbox.RunQuery) (sandbox.Run, error) {
	q.Cancel = false
	_, _, got, err := m.begin(caller).lookAtRun(ctx, id, q)
	return got, err
}

// Runs returns the runs of a sandbox, the oldest first, with the IDs that callers know them by.
func (m *Manager) Runs(ctx context.Context, caller Caller, name string) ([]sandbox.Run, error) {
	c := m.begin(caller)
	b, s, err := c.vetted(ctx, policy.Call{Verb: policy.VerbWait, Owner: c.Owner, Sandbox: name}, name)
	if err != nil {
		return nil, err
	}
	done, err := c.use(ctx, b, s)
	if err != nil {
		return nil, err
	}
	defer done()
	all, err := b.Runs(ctx, s.ID)
	for i := range all {
		all[i].ID = name + "." + all[i].ID
	}
	return all, err
}

// cursor names a place in both outputs of a run.
func cursor(stdout, stderr int64) string { return fmt.Sprintf("%d:%d", stdout, stderr) }

// outputText returns an output that was asked for from a place on, where to read on, and whether something is missing: in its
// middle when from is negative, at its end else. middle is the cursor of what is missing in its middle.
func outputText(o sandbox.RunOutput, from int64, middle string) (text string, next int64, missing bool) {
	if from >= 0 {
		next = from + int64(len(o.Head))
		return valid(o.Head), next, next < o.Size
	}
	shown := int64(len(o.Head) + len(o.Tail))
	if shown >= o.Size {
		return valid(append(o.Head[:len(o.Head):len(o.Head)], o.Tail...)), o.Size, false
	}
	return cutText(o.Head, o.Tail, o.Size-shown, fmt.Sprintf("wait with the cursor %q reads on from here", middle)), o.Size, true
}

// A run is named NAME.RUN to callers. A sandbox's name has no dot.
var runRule = regexp.MustCompile(`^[a-z0-9]{8,40}$`)
