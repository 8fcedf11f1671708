package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/app"
	"pixels/internal/server"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/tools"
)

// channel is how calls by the command line came, on record.
const channel = "cli"

// verbs do what people ask for by the calls that agents make, too: one call is vetted, done and recorded in one way.
type verbs struct {
	*cli
	session tools.Session
	streams streamer
	// service opens a session with the service once; nil where there is none. It makes the calls, and session is empty.
	service func() (*server.Client, error)
}

// withVerbs opens what verbs need, and closes it.
func (a *cli) withVerbs(cmd *cobra.Command, do func(ctx context.Context, v *verbs) error) error {
	ctx := cmd.Context()
	a.note()
	served, err := a.served()
	if err != nil {
		return err
	}
	if served != nil {
		v := &verbs{cli: a, streams: served}
		opened := false
		v.service = sync.OnceValues(func() (*server.Client, error) {
			opened = true
			ctx := ctx
			if ctx.Err() != nil { // to look what became of what was interrupted
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
				defer cancel()
			}
			return served.open(ctx)
		})
		err := do(ctx, v)
		if opened {
			if client, failed := v.service(); failed == nil {
				_ = client.Close() // its calls have been answered
			}
		}
		return err
	}
	return a.withApp(func(opened *app.App) error {
		caller := opened.Door.Human(channel).As(a.owner)
		if opened.Manager.Approval() != policy.Terminal {
			// The policy wants a proof of who widens what a sandbox reaches: these calls are no better than an agent's.
			caller = manager.Agent(a.owner)
			caller.Channel = channel
		}
		v := &verbs{cli: a, session: tools.Session{Manager: opened.Manager, Operations: tools.Unlimited(ctx), Caller: caller, Audience: view.Terminal}}
		v.streams = local{v}
		return do(ctx, v)
	})
}

// byService has the service make a call, and waits for it however long it takes.
func (v *verbs) byService(ctx context.Context, tool policy.Verb, arguments map[string]any, out any) error {
	service, err := v.service()
	if err != nil {
		return err
	}
	var answer json.RawMessage
	_, err = service.CallForPeople(ctx, string(tool), arguments, &answer)
	for {
		var under struct {
			Operation string `json:"operation"`
		}
		_ = json.Unmarshal(answer, &under) // what is no operation has none
		if err != nil || under.Operation == "" || tool == policy.VerbExec || tool == policy.VerbWait {
			break
		}
		var waited struct {
			Operations []struct {
				State  string          `json:"state"`
				Result json.RawMessage `json:"result"`
				Error  string          `json:"error"`
			} `json:"operations"`
		}
		_, err = service.CallForPeople(ctx, string(policy.VerbWait), map[string]any{"ids": []string{under.Operation}}, &waited)
		if err != nil || len(waited.Operations) != 1 {
			return errors.Join(err, ctx.Err())
		}
		switch op := waited.Operations[0]; {
		case op.Error != "":
			return errors.New(op.Error)
		case op.State != "running":
			answer = op.Result
		}
	}
	if out != nil && len(answer) > 0 {
		if e := json.Unmarshal(answer, out); e != nil {
			return fmt.Errorf("read the answer of %s: %w", tool, e)
		}
		if err != nil {
			return errPartly
		}
	}
	return err
}

// errPartly is what is wrong where an answer has more: some of what was asked for was done.
var errPartly = errors.New("not all of it could be done")

// call calls a tool, and reads its answer into out, which may be nil. Where a call fails that has an answer all the same, that is
// read and the error is errPartly.
func (v *verbs) call(ctx context.Context, tool policy.Verb, arguments map[string]any, out any) error {
	if v.service != nil {
		return v.byService(ctx, tool, arguments, out)
	}
	b, err := json.Marshal(arguments)
	if err != nil {
		return err
	}
	session := v.session
	session.Caller = v.caller()
	r := tools.Call(ctx, session, string(tool), b)
	if r.Failed && r.Structured == nil {
		return r.Err()
	}
	if out != nil {
		if b, err = json.Marshal(r.Structured); err == nil {
			err = json.Unmarshal(b, out)
		}
		if err != nil {
			return fmt.Errorf("read the answer of %s: %w", tool, err)
		}
	}
	if r.Failed {
		return errPartly
	}
	return nil
}

// caller is who calls, with a name for the call.
func (v *verbs) caller() manager.Caller {
	c := v.session.Caller
	c.Call = ledger.NewCall()
	c.Woken = v.woken
	return c
}

// woken says that a sandbox was started for a call.
func (a *cli) woken(name string) {
	end := "\n"
	if a.rawMode {
		end = "\r\n"
	}
	fmt.Fprintf(a.err, "%s was not used for long: started again%s", name, end)
}

// names wants one name or more.
func names(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 || slices.Contains(args, "") {
			return usageError{fmt.Errorf("`%s` wants %s; see `%s --help`", cmd.CommandPath(), what, cmd.CommandPath())}
		}
		return nil
	}
}

// several are the errors of calls that belong together.
type several []error

func (s several) Error() string { return errors.Join(s...).Error() }

func (s several) Unwrap() []error { return s }

// interrupted ends a command that was interrupted, and says what became of it.
type interrupted struct{ what string }

func (i interrupted) Error() string { return "interrupted: " + i.what }

// outcome joins what went wrong with names. without says what those are that an interruption ended.
func outcome(ctx context.Context, names []string, errs []error, without string) error {
	var all several
	var cut []string
	for i, err := range errs {
		switch {
		case err == nil:
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			cut = append(cut, names[i])
		default:
			all = append(all, err)
		}
	}
	switch {
	case len(cut) > 0:
		all = append(all, interrupted{joined(cut) + ": " + without})
	case len(all) == 0:
		return nil
	}
	if len(all) == 1 {
		return all[0]
	}
	return all
}

// unmade is an error, or says what became of a call that was interrupted.
func unmade(ctx context.Context, err error, what string) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return interrupted{what}
	}
	return err
}
