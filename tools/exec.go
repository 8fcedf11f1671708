package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"pixels/sandbox"
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
	Name    string            `json:"name" jsonschema:"of the sandbox"`
	Command command           `json:"command" jsonschema:"a string runs in bash; a list is a program and its arguments, without a shell"`
	Cwd     string            `json:"cwd,omitempty" jsonschema:"absolute path; the user's home when left out"`
	Env     map[string]string `json:"env,omitempty"`
	User    string            `json:"user,omitempty" jsonschema:"pixel when left out; root works too"`
	Stdin   string            `json:"stdin,omitempty"`
	Timeout float64           `json:"timeout,omitempty" jsonschema:"seconds, up to 45; 30 when left out"`
}

type execOutput struct {
	ExitCode   int    `json:"exit_code" jsonschema:"127: no such command; 124: ended by the timeout"`
	Stdout     string `json:"stdout"`
	Stderr     string `json:"stderr"`
	Truncated  bool   `json:"truncated" jsonschema:"the middle of an output was cut"`
	TimedOut   bool   `json:"timed_out"`
	DurationMS int64  `json:"duration_ms"`
}

var execTool = define(Tool{
	Name: "exec", Title: "Run a command", Destructive: true,
	Description: "Runs a command in a sandbox to its end, as the user pixel (who may use sudo), and returns exit code and output. " +
		"A command that fails is a result. At the timeout all that it started is ended. Of long output the beginning and the end are kept.",
}, func(ctx context.Context, s Session, in execInput) (execOutput, Result, error) {
	if math.IsNaN(in.Timeout) || in.Timeout < 0 || in.Timeout > sandbox.MaxTimeout.Seconds() {
		return execOutput{}, Result{}, fmt.Errorf("the argument \"timeout\" is %v; give up to %v seconds, and let longer work run behind (setsid, nohup), to be looked after with further calls", in.Timeout, sandbox.MaxTimeout.Seconds())
	}
	r, err := s.Manager.Exec(ctx, s.Owner, sandbox.ExecRequest{
		Name: in.Name, Argv: in.Command.argv, Shell: in.Command.shell, Cwd: in.Cwd, Env: in.Env, User: in.User, Stdin: in.Stdin,
		Timeout: time.Duration(in.Timeout * float64(time.Second)),
	})
	if err != nil {
		return execOutput{}, Result{}, err
	}
	out := outputOf(r)
	return out, Result{Text: out.text(), Failed: r.TimedOut}, nil
})

func outputOf(r sandbox.ExecResult) execOutput {
	return execOutput{r.ExitCode, r.Stdout, r.Stderr, r.Truncated, r.TimedOut, r.Duration.Milliseconds()}
}

// text says all of an output for clients that show only text.
func (o execOutput) text() string {
	var parts []string
	if o.Stdout != "" {
		parts = append(parts, strings.TrimRight(o.Stdout, "\n"))
	}
	if o.Stderr != "" {
		parts = append(parts, "[stderr]", strings.TrimRight(o.Stderr, "\n"))
	}
	end := fmt.Sprintf("[exit code %d, %d ms]", o.ExitCode, o.DurationMS)
	if o.TimedOut {
		end = fmt.Sprintf("[timed out after %d ms; the command and all that it started were ended]", o.DurationMS)
	}
	return strings.Join(append(parts, end), "\n")
}
