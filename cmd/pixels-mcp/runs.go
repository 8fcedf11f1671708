package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/fault"
	"pixels/internal/program"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// runInfo is a command in the background as JSON.
type runInfo struct {
	Operation string           `json:"operation"`
	State     sandbox.RunState `json:"state"`
	ExitCode  *int             `json:"exit_code,omitempty"`
	Command   string           `json:"command,omitempty"`
	Started   time.Time        `json:"started_at"`
	Ended     time.Time        `json:"ended_at,omitzero"`
}

func (a *cli) logsCommand() *cobra.Command {
	var s shown
	follow, all := false, false
	cmd := &cobra.Command{
		Use:   "logs NAME|OPERATION",
		Short: "Show what a command in the background said",
		Long: "logs shows what a command in the background said: the one of an operation (NAME.ID, as `exec --detach` and agents'\n" +
			"tools name it), or the latest one of a sandbox. Its exit code is not the command's.",
		Example: "  " + program.Name + " logs work\n  " + program.Name + " logs -f work.k3xisscy6fq5mzr7ka2x4d\n  " + program.Name + " logs --list work",
		Args:    exactly(1, "the name of a sandbox, or an operation"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				if all || s.json {
					runs, err := v.runs(ctx, args[0])
					if err != nil {
						return err
					}
					return v.printRuns(args[0], runs, s)
				}
				id := args[0]
				if !sandbox.IsRun(id) {
					runs, err := v.runs(ctx, id)
					if err != nil {
						return err
					}
					if len(runs) == 0 {
						return fault.About(fault.NotFound, fault.Sandbox(id), "runs nothing in the background, and ran nothing; `%s exec -d %s COMMAND` does", program.Name, id)
					}
					id = runs[len(runs)-1].Operation
				}
				return v.logs(ctx, id, follow)
			})
		},
	}
	s.flags(cmd, "")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the command has ended")
	cmd.Flags().BoolVar(&all, "list", false, "list all that run, and the last that ended")
	return cmd
}

// runs returns what runs in a sandbox in the background, and what ran, the oldest first.
func (v *verbs) runs(ctx context.Context, name string) ([]runInfo, error) {
	all, err := v.streams.Runs(ctx, name)
	out := []runInfo{}
	for _, r := range all {
		info := runInfo{Operation: r.ID, State: r.State, Command: r.Command, Started: r.Started, Ended: r.Ended}
		if r.State == sandbox.RunEnded {
			info.ExitCode = &r.ExitCode
		}
		out = append(out, info)
	}
	return out, err
}

func (v *verbs) printRuns(name string, runs []runInfo, s shown) error {
	if s.json {
		return v.printJSON(runs)
	}
	if len(runs) == 0 {
		fmt.Fprintf(v.err, "nothing runs in %s in the background, or ran\n", name)
		return nil
	}
	var rows [][]string
	for _, r := range runs {
		code := "—"
		if r.ExitCode != nil {
			code = fmt.Sprint(*r.ExitCode)
		}
		rows = append(rows, []string{r.Operation, string(r.State), code, view.Past(r.Started), r.Command})
	}
	return v.printTable([]string{"OPERATION", "STATE", "EXIT", "STARTED", "COMMAND"}, rows)
}

// logLimit is how much of each output is asked for at once, in bytes.
const logLimit = 256 << 10

// logs passes on both outputs of a run, byte for byte.
func (v *verbs) logs(ctx context.Context, id string, follow bool) error {
	q := sandbox.RunQuery{Limit: logLimit}
	for {
		got, err := v.streams.RunOutput(ctx, id, q)
		if err != nil {
			return err
		}
		if _, err := v.raw.Write(got.Stdout.Head); err != nil {
			return err
		}
		if _, err := v.rawErr.Write(got.Stderr.Head); err != nil {
			return err
		}
		q.Stdout, q.Stderr = q.Stdout+int64(len(got.Stdout.Head)), q.Stderr+int64(len(got.Stderr.Head))
		switch whole := q.Stdout >= got.Stdout.Size && q.Stderr >= got.Stderr.Size; {
		case !whole:
			q.Wait = 0
		case got.State != sandbox.RunRunning || !follow:
			return nil
		default:
			q.Wait = time.Second
		}
	}
}

func (a *cli) waitCommand() *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use:   "wait OPERATION|REQUEST...",
		Short: "Wait until commands in the background have ended, or requests are decided",
		Long: "wait waits until commands in the background (NAME.ID) have ended, and requests (req-ID) are decided. Of one command\n" +
			"it has the exit code; else it is 0 when all ended well and all was granted, and 4 when something was denied.",
		Args: names("operations or requests"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error { return v.wait(ctx, args, s) })
		},
	}
	s.flags(cmd, "")
	return cmd
}

// waited is what became of what was waited for.
type waited struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Exec  *struct {
		ExitCode *int `json:"exit_code"`
	} `json:"exec,omitempty"`
	Result *view.Request `json:"result,omitempty"`
	Error  string        `json:"error,omitempty"`
}

func (v *verbs) wait(ctx context.Context, ids []string, s shown) error {
	p := v.progress("waiting for " + joined(ids))
	defer p.end()
	ended := map[string]waited{}
	var all []waited
	for {
		var out struct {
			Operations []waited `json:"operations"`
			Running    int      `json:"running"`
		}
		if err := v.call(ctx, policy.VerbWait, map[string]any{"ids": ids}, &out); err != nil && !errors.Is(err, errPartly) {
			return err
		}
		all = out.Operations
		for _, w := range all {
			if _, told := ended[w.ID]; told || w.State == "running" {
				continue
			}
			ended[w.ID] = w
			if w.Error != "" {
				p.say(func() { fmt.Fprintf(v.err, "%s: %s\n", program.Name, w.line()) })
			} else if !s.json {
				p.say(func() { fmt.Fprintln(v.out, w.line()) })
			}
		}
		if out.Running == 0 {
			break
		}
	}
	p.end()
	if s.json {
		if err := v.printJSON(all); err != nil {
			return err
		}
	}
	return codeOfWaited(all)
}

func (w waited) line() string {
	switch {
	case w.Error != "":
		return w.Error
	case w.Exec != nil && w.Exec.ExitCode != nil:
		return fmt.Sprintf("%s: %s, exit code %d", w.ID, w.State, *w.Exec.ExitCode)
	case w.Result != nil:
		return strings.TrimSpace(fmt.Sprintf("%s: %s is %s %s", w.ID, w.Result.Domain, w.Result.State, w.Result.Answer))
	}
	return w.ID + ": " + w.State
}

// codeOfWaited is the exit code for what was waited for.
func codeOfWaited(all []waited) error {
	if len(all) == 1 && all[0].Exec != nil && all[0].Exec.ExitCode != nil {
		if code := *all[0].Exec.ExitCode; code != 0 {
			return exitCode(code)
		}
		return nil
	}
	code := exitCode(0)
	for _, w := range all {
		switch {
		case w.Error != "" && len(all) == 1 && strings.Contains(w.Error, string(fault.NotFound)):
			code = exitNotFound
		case w.Exec != nil && w.Exec.ExitCode != nil && *w.Exec.ExitCode != 0, w.State == "lost", w.State == "unknown":
			code = exitFailed
		case w.Result != nil && w.Result.State != ledger.RequestGranted && code == 0:
			code = exitDenied
		}
	}
	if code == 0 {
		return nil
	}
	return code
}
