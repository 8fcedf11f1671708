package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
)

// cloned is a clone, and what a command left in it.
type cloned struct {
	view.Sandbox
	Exec  *view.Run `json:"exec,omitempty"`
	Error string    `json:"error,omitempty"`

	took time.Duration
}

func (a *cli) cloneCommand() *cobra.Command {
	var m made
	var s shown
	count := 0
	cmd := &cobra.Command{
		Use:   "clone SANDBOX:LABEL [NAME...] [-- COMMAND [ARGUMENT...]]",
		Short: "Make copies of a checkpoint, and run a command in each",
		Long: "clone makes copies of a checkpoint side by side: of the names that are given, or SANDBOX-1, SANDBOX-2 and so on. After --\n" +
			"stands a command that is run in each: a line is shown as each ends, and a table at last. Its output stays in the clone,\n" +
			"where `" + program.Name + " logs NAME` shows it. Ctrl-C ends the commands, and leaves the clones.",
		Example: "  " + program.Name + " clone base:ready -n 8 -- make test\n  " + program.Name + " clone base:ready red blue green",
		Args: func(cmd *cobra.Command, args []string) error {
			before, _ := dashed(cmd, args)
			if len(before) == 0 || !strings.Contains(before[0], ":") {
				return usageError{fmt.Errorf("`%s` wants a checkpoint, as SANDBOX:LABEL; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			before, command := dashed(cmd, args)
			arguments, err := m.arguments()
			if err != nil {
				return err
			}
			arguments["source"] = before[0]
			if cmd.Flags().Changed("count") {
				arguments["count"] = count
			}
			if len(before) > 1 {
				arguments["names"] = before[1:]
			}
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error { return v.clone(ctx, arguments, command, s) })
		},
	}
	m.flags(cmd)
	completeFlag(cmd, "egress", a.someMode)
	s.flags(cmd, "names")
	cmd.Flags().IntVarP(&count, "count", "n", 1, "how many")
	return cmd
}

// dashed divides arguments at --.
func dashed(cmd *cobra.Command, args []string) (before, after []string) {
	if n := cmd.ArgsLenAtDash(); n >= 0 {
		return args[:n], args[n:]
	}
	return args, nil
}

func (v *verbs) clone(ctx context.Context, arguments map[string]any, command []string, s shown) error {
	var out struct {
		Clones []cloned `json:"clones"`
	}
	p := v.progress(fmt.Sprintf("cloning %s", arguments["source"]))
	err := v.call(ctx, policy.VerbCloneSandbox, arguments, &out)
	p.end()
	if err != nil && !errors.Is(err, errPartly) {
		return unmade(ctx, err, "no clone was made")
	}
	for i := range out.Clones {
		c := &out.Clones[i]
		switch {
		case c.Error != "":
			fmt.Fprintf(v.err, "%s: %s was not made: %s\n", program.Name, c.Name, c.Error)
		case s.quiet:
			fmt.Fprintln(v.out, c.Name)
		case !s.json:
			fmt.Fprintf(v.out, "Created %s%s\n", c.Name, at(c.Sandbox))
		}
	}
	if len(command) > 0 {
		v.runInEach(ctx, out.Clones, command, s)
	}
	if s.json {
		if err := v.printJSON(out.Clones); err != nil {
			return err
		}
	} else if len(command) > 0 && !s.quiet {
		if err := v.printCloned(out.Clones); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return interrupted{"the commands were ended, the clones are there; `" + program.Name + " list` shows them"}
	}
	var asked []string
	for _, c := range out.Clones {
		if c.Error != "" || len(command) > 0 && (c.Exec == nil || c.Exec.ExitCode == nil || *c.Exec.ExitCode != 0) {
			return exitCode(exitFailed)
		}
		asked = append(asked, c.Requests...)
	}
	return v.asked(asked)
}

// runInEach runs a command in each clone, and says of each how it ended.
func (v *verbs) runInEach(ctx context.Context, clones []cloned, command []string, s shown) {
	p := v.progress("running " + strings.Join(command, " "))
	defer p.end()
	var work sync.WaitGroup
	for i := range clones {
		c := &clones[i]
		if c.Error != "" {
			continue
		}
		work.Go(func() {
			begun := time.Now()
			exec, err := v.runBehind(ctx, c.Name, command)
			c.took, c.Exec = units.Rounded(time.Since(begun)), exec
			if err != nil {
				c.Error = view.Error(err, view.Terminal)
			}
			if !s.json && !s.quiet {
				p.say(func() { fmt.Fprintf(v.out, "%s: %s after %s\n", c.Name, c.ended(), c.took) })
			}
		})
	}
	work.Wait()
}

// ended says how the command in a clone ended.
func (c cloned) ended() string {
	switch {
	case c.Error != "":
		return c.Error
	case c.Exec == nil || c.Exec.ExitCode == nil:
		return "ended"
	}
	return fmt.Sprintf("exit code %d", *c.Exec.ExitCode)
}

// runBehind runs a command in the background of a sandbox, so that its output is kept there, and waits for its end. When ctx ends it
// ends the command.
func (v *verbs) runBehind(ctx context.Context, name string, command []string) (*view.Run, error) {
	id, err := v.streams.StartRun(ctx, (&execFlags{}).request(name, command))
	if err != nil {
		return nil, err
	}
	type operations struct {
		Operations []struct {
			State sandbox.RunState `json:"state"`
			Exec  *view.Run        `json:"exec"`
			Error string           `json:"error"`
		} `json:"operations"`
	}
	for {
		var out operations
		err := v.call(ctx, policy.VerbWait, map[string]any{"ids": []string{id}}, &out)
		if ctx.Err() != nil {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
			defer cancel()
			if err := v.call(end, policy.VerbWait, map[string]any{"ids": []string{id}, "cancel": true}, nil); err != nil {
				return nil, fmt.Errorf("interrupted, and it may still run: %w", err)
			}
			return nil, errors.New("interrupted")
		}
		if err != nil && !errors.Is(err, errPartly) {
			return nil, err
		}
		switch op := out.Operations[0]; {
		case op.Error != "":
			return nil, errors.New(op.Error)
		case op.State == sandbox.RunLost:
			return nil, errors.New("the sandbox ended while it ran")
		case op.State != sandbox.RunRunning:
			return op.Exec, nil
		}
	}
}

// printCloned prints a table of how the command ended in each clone.
func (v *verbs) printCloned(clones []cloned) error {
	var rows [][]string
	for _, c := range clones {
		code, last := "—", c.Error
		if c.Exec != nil && c.Exec.ExitCode != nil {
			code, last = fmt.Sprint(*c.Exec.ExitCode), lastLine(c.Exec.Stdout, c.Exec.Stderr)
		}
		rows = append(rows, []string{c.Name, code, c.took.String(), orNone(last)})
	}
	fmt.Fprintln(v.out)
	return v.printTable([]string{"NAME", "EXIT", "TIME", "LAST LINE"}, rows)
}

// lastLine is the last line of the first output that has one.
func lastLine(outputs ...string) string {
	for _, text := range outputs {
		if text = strings.TrimSpace(text); text != "" {
			return text[strings.LastIndex(text, "\n")+1:]
		}
	}
	return ""
}
