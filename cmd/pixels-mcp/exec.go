package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/sandbox/manager"
)

// execFlags are how a command is to be run.
type execFlags struct {
	tty, background  bool
	input            bool
	user, cwd, limit string
	env              []string
	limitTime        time.Duration
	envValues        map[string]string
}

func (a *cli) execCommand() *cobra.Command {
	var e execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] NAME COMMAND [ARGUMENT...]",
		Short: "Run a command in a sandbox, with the streams of this one",
		Long: "exec runs a command in a sandbox and ends with its exit code; input and output pass through as they come. One word\n" +
			"is a line for the shell, several are a program and its arguments. Flags stand before the name: what follows it is the\n" +
			"command's. Ctrl-C ends the command with all that it started. Where exec itself fails its exit code is 125.",
		Example: "  " + program.Name + " exec work ls -l /etc\n" +
			"  " + program.Name + " exec work 'cd app && make test'\n" +
			"  tar c . | " + program.Name + " exec work tar x -C /tmp\n" +
			"  " + program.Name + " exec -t work vim notes.txt",
		Args: func(cmd *cobra.Command, args []string) error {
			dashed := len(args) > 1 && args[1] == "--" || cmd.Flags().ArgsLenAtDash() >= 0
			switch command := commandOf(args); {
			case len(command) == 0 || args[0] == "":
				return usageError{fmt.Errorf("`%s` wants the name of a sandbox and a command; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())}
			case strings.HasPrefix(command[0], "-") && !dashed:
				return usageError{fmt.Errorf("%s follows the name, so that it would be the command: flags stand before the name, and after -- all is the command's", command[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name, command := args[0], commandOf(args)
			if err := e.parse(); err != nil {
				return err
			}
			err := a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				if e.background {
					return v.execBehind(ctx, name, command, e)
				}
				return v.exec(ctx, name, command, e)
			})
			var code exitCode
			var usage usageError
			if err == nil || errors.As(err, &code) || errors.As(err, &usage) || errors.Is(err, context.Canceled) {
				return err
			}
			return execError{err}
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&e.tty, "tty", "t", false, "give the command a terminal")
	f.BoolVarP(&e.input, "interactive", "i", true, "pass on input; with =false the command's is empty")
	f.StringVarP(&e.user, "user", "u", "", "`user` to run it as (default pixel)")
	f.StringVarP(&e.cwd, "workdir", "w", "", "`folder` in the sandbox to run it in (default the user's home)")
	f.StringArrayVarP(&e.env, "env", "e", nil, "variable, as `KEY=VALUE`; may be given again")
	f.StringVar(&e.limit, "timeout", "", "end it after a `time`, as 30s or 2h; the exit code is 124 then")
	f.BoolVarP(&e.background, "detach", "d", false, "run it in the background, and print by which name `logs` and `wait` know it")
	return cmd
}

// commandOf is what follows the name, and a -- behind that.
func commandOf(args []string) []string {
	if len(args) > 1 && args[1] == "--" {
		return args[2:]
	}
	return args[min(1, len(args)):]
}

func (e *execFlags) parse() (err error) {
	if e.limit != "" {
		if e.limitTime, err = units.ParseDuration(e.limit); err != nil {
			return usageError{fmt.Errorf("--timeout: %w", err)}
		}
	}
	if e.tty && !e.input {
		return usageError{errors.New("a command with a terminal has its input from there: give --tty or --interactive=false, not both")}
	}
	if e.tty && e.background {
		return usageError{errors.New("give --tty or --detach, not both")}
	}
	e.envValues, err = keyValues("env", e.env)
	return err
}

// execError is a failure of exec itself.
type execError struct{ error }

func (e execError) Unwrap() error { return e.error }

// request is a command as it was typed.
func (e *execFlags) request(name string, command []string) manager.ExecRequest {
	r := manager.ExecRequest{Name: name, Cwd: e.cwd, Env: e.envValues, User: e.user, Timeout: e.limitTime}
	if len(command) == 1 {
		r.Shell = command[0]
	} else {
		r.Argv = command
	}
	return r
}

// exec runs a command with the streams of this process.
func (v *verbs) exec(ctx context.Context, name string, command []string, e execFlags) error {
	defer v.giveUpAt2nd(ctx)()
	streams, putBack := manager.Streams{In: v.in, Out: v.raw, Err: v.rawErr}, func(bool) {}
	if !e.input || isNull(v.in) {
		streams.In = nil // a command without input starts faster
	}
	if e.tty {
		screen, err := v.openScreen()
		if err != nil {
			return err
		}
		streams, putBack = screen.streams(), screen.close
	}
	got, err := v.streams.Stream(ctx, e.request(name, command), streams)
	putBack(err != nil) // before anything is said
	if err != nil {
		return err
	}
	if denied := view.Denied(got.Denied, view.Terminal); denied != "" && v.says() {
		fmt.Fprintf(v.err, "%s: %s\n", program.Name, denied)
	}
	if got.TimedOut {
		fmt.Fprintf(v.err, "%s: it was ended after %s, with all that it started\n", program.Name, e.limit)
	}
	if got.ExitCode != 0 {
		return exitCode(got.ExitCode)
	}
	return nil
}

// isNull tells whether r is the null device.
func isNull(r io.Reader) bool {
	file, ok := r.(*os.File)
	if !ok {
		return false
	}
	is, err := file.Stat()
	null, failed := os.Stat(os.DevNull)
	return err == nil && failed == nil && os.SameFile(is, null)
}

// says tells whether somebody reads stderr, so that more may stand there than the command's own.
func (a *cli) says() bool {
	_, ok := terminal(a.rawErr)
	return ok || a.verbose
}

// giveUpAt2nd ends this process at the second Ctrl-C: the first one ends the command, which may take a while. stop undoes it.
func (v *verbs) giveUpAt2nd(ctx context.Context) (stop func()) {
	again := make(chan os.Signal, 1)
	undo := context.AfterFunc(ctx, func() {
		signal.Notify(again, os.Interrupt)
		if _, ok := <-again; ok {
			fmt.Fprintf(v.err, "%s: not waited for its end: it may still run\n", program.Name)
			os.Exit(exitInterrupted)
		}
	})
	return func() { undo(); signal.Stop(again) }
}

// execBehind starts a command in the background and prints its name.
func (v *verbs) execBehind(ctx context.Context, name string, command []string, e execFlags) error {
	id, err := v.streams.StartRun(ctx, e.request(name, command))
	if err != nil {
		return err
	}
	fmt.Fprintln(v.out, id)
	if v.says() {
		fmt.Fprintf(v.err, "it runs in the background: `%s logs %s` shows what it says, `%s wait %s` waits for its end\n", program.Name, id, program.Name, id)
	}
	return nil
}
