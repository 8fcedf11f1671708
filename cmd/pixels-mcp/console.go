package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/fault"
	"pixels/internal/program"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// consoleFlags are how a console is to be.
type consoleFlags struct {
	session, user string
	alone         bool // no session
}

func (a *cli) consoleCommand() *cobra.Command {
	var c consoleFlags
	cmd := &cobra.Command{
		Use:   "console NAME",
		Short: "Work in a sandbox by a terminal, in a session that goes on when you leave",
		Long: "console joins this terminal with a shell in a sandbox. Its session goes on when the connection is lost or you leave it,\n" +
			"by Ctrl+\\ or the command detach; the next console is in the same one, with all that was on its screen. Several\n" +
			"terminals may be in one session. A sandbox that is stopped is started. Where stdin is no terminal, the shell reads it.",
		Example: "  " + program.Name + " console work\n  " + program.Name + " console work -s tests",
		Args:    exactly(1, "the name of a sandbox"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error { return v.console(ctx, args[0], c) })
		},
	}
	cmd.Flags().StringVarP(&c.session, "session", "s", "console", "`name` of the session")
	cmd.Flags().StringVarP(&c.user, "user", "u", "", "`user` whose shell it is (default pixel)")
	cmd.Flags().BoolVar(&c.alone, "no-persist", false, "a shell of its own, which ends with this terminal")
	return cmd
}

// console joins the terminal with a shell, and says at the end why it ended.
func (v *verbs) console(ctx context.Context, name string, c consoleFlags) (err error) {
	if c.alone {
		c.session = ""
	} else if err := sandbox.CheckSession(c.session); err != nil {
		return err
	}
	if err := v.started(ctx, name); err != nil {
		return err
	}
	_, in := terminal(v.in)
	if _, out := terminal(v.raw); !in || !out {
		return v.exec(ctx, name, []string{"bash", "-l"}, execFlags{user: c.user, input: true})
	}
	screen, err := v.openScreen()
	if err != nil {
		return err
	}
	code, err := v.streams.Console(ctx, manager.ConsoleRequest{Name: name, Session: c.session, User: c.user}, screen.streams())
	screen.close(err != nil)
	return v.sayWhyEnded(ctx, name, c.session, code, err)
}

// started starts a sandbox that is stopped or paused, and says so.
func (v *verbs) started(ctx context.Context, name string) error {
	s, err := v.find(ctx, name)
	if err != nil || s.State != sandbox.Stopped && s.State != sandbox.Paused {
		return err
	}
	p := v.progress("starting " + name)
	err = v.call(ctx, policy.VerbSetSandboxState, map[string]any{"name": name, "state": sandbox.Running}, nil)
	p.end()
	if err == nil {
		fmt.Fprintf(v.err, "%s was %s: started in %s\n", name, stateOf(s), p.took())
	}
	return err
}

// find returns a sandbox by its name.
func (v *verbs) find(ctx context.Context, name string) (view.Sandbox, error) {
	boxes, err := v.list(ctx, map[string]any{"name": name})
	if err != nil {
		return view.Sandbox{}, err
	}
	for _, b := range boxes {
		if b.Name == name {
			return b, nil
		}
	}
	// This call says it in its words, with the names that there are.
	return view.Sandbox{Name: name}, v.call(ctx, policy.VerbListCheckpoints, map[string]any{"name": name}, nil)
}

// sayWhyEnded says in the last line why a console ended.
func (v *verbs) sayWhyEnded(ctx context.Context, name, session string, code int, err error) error {
	switch {
	case errors.Is(err, context.Canceled) && session != "":
		return interrupted{fmt.Sprintf("the session %s of %s goes on", session, name)}
	case err == nil && code == sandbox.ExitDetached:
		back := fmt.Sprintf("%s console %s", program.Name, name)
		if session != "console" {
			back += " -s " + session
		}
		fmt.Fprintf(v.err, "left the session %s of %s, which goes on: `%s` comes back to it\n", session, name, back)
		return nil
	case err == nil && session == "":
		fmt.Fprintf(v.err, "the shell in %s has ended\n", name)
		return nil
	case err == nil && code == 0:
		fmt.Fprintf(v.err, "the session %s of %s has ended\n", session, name)
		return nil
	}
	if what := v.whatBecame(context.WithoutCancel(ctx), name); what != "" {
		return fmt.Errorf("the console ended: sandbox %q %s", name, what)
	}
	switch {
	case err == nil:
		err = fmt.Errorf("the session %s was ended", session)
	case session != "" && errors.Is(err, fault.Unavailable):
		return fmt.Errorf("the console ended, and the session %s of %s goes on: %w", session, name, err)
	}
	return fmt.Errorf("the console ended: %w", err)
}

// whatBecame says what became of a sandbox in which something was cut off; empty when it runs. One that is about to stop is waited for.
func (v *verbs) whatBecame(ctx context.Context, name string) string {
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		switch s, err := v.find(ctx, name); {
		case errors.Is(err, sandbox.ErrNotFound):
			return "is gone"
		case err == nil && s.State != sandbox.Running:
			return "is " + string(s.State)
		}
	}
	return ""
}

// session is a console session as JSON.
type session struct {
	Name     string    `json:"name"`
	Attached int       `json:"attached"`
	Command  string    `json:"command,omitempty"`
	Created  time.Time `json:"created_at"`
}

func (a *cli) sessionsCommand() *cobra.Command {
	var s shown
	var user string
	cmd := &cobra.Command{
		Use:   "sessions NAME",
		Short: "List the console sessions of a sandbox",
		Args:  exactly(1, "the name of a sandbox"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				all, err := v.sessions(ctx, args[0], user)
				if err != nil {
					return err
				}
				return v.printSessions(args[0], all, s)
			})
		},
	}
	s.flags(cmd, "names")
	cmd.Flags().StringVarP(&user, "user", "u", "", "`user` whose sessions (default pixel)")
	return cmd
}

func (v *verbs) sessions(ctx context.Context, name, user string) ([]session, error) {
	all, err := v.streams.Sessions(ctx, name, user)
	out := []session{}
	for _, s := range all {
		out = append(out, session{s.Name, s.Attached, s.Command, s.Created})
	}
	return out, err
}

func (v *verbs) printSessions(name string, all []session, s shown) error {
	if s.json {
		return v.printJSON(all)
	}
	if len(all) == 0 && !s.quiet {
		fmt.Fprintf(v.err, "%s has no session; `%s console %s` begins one\n", name, program.Name, name)
		return nil
	}
	var rows [][]string
	for _, one := range all {
		if s.quiet {
			fmt.Fprintln(v.out, one.Name)
			continue
		}
		at := "nobody is on it"
		if one.Attached > 0 {
			at = view.Count(one.Attached, "terminal", "terminals")
		}
		rows = append(rows, []string{one.Name, "running", at, orNone(one.Command), view.Past(one.Created)})
	}
	if s.quiet {
		return nil
	}
	return v.printTable([]string{"SESSION", "STATUS", "ATTACHED", "COMMAND", "CREATED"}, rows)
}
