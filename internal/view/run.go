package view

import (
	"fmt"
	"strings"

	"pixels/sandbox/manager"
)

// Run is what a command left, as JSON.
type Run struct {
	ExitCode   *int   `json:"exit_code,omitempty" jsonschema:"127: no such command; 124: ended by the timeout; left out while it runs"`
	Stdout     string `json:"stdout,omitempty"`
	Stderr     string `json:"stderr,omitempty"`
	Truncated  bool   `json:"truncated,omitempty" jsonschema:"the middle of an output was cut"`
	TimedOut   bool   `json:"timed_out,omitempty"`
	DurationMS int64  `json:"duration_ms,omitempty"`
	Denied     string `json:"denied,omitempty" jsonschema:"by egress, while it ran"`
	Operation  string `json:"operation,omitempty" jsonschema:"of a command in the background: give it to wait"`
}

// RunOf is what of a command is shown.
func RunOf(r manager.ExecResult) Run {
	return Run{ExitCode: &r.ExitCode, Stdout: r.Stdout, Stderr: r.Stderr, Truncated: r.Truncated, TimedOut: r.TimedOut, DurationMS: r.Duration.Milliseconds(), Denied: Denied(r.Denied, Agent)}
}

// Text says all of an output for clients that show only text.
func (o Run) Text() string {
	var parts []string
	if o.Stdout != "" {
		parts = append(parts, strings.TrimRight(o.Stdout, "\n"))
	}
	if o.Stderr != "" {
		parts = append(parts, "[stderr]", strings.TrimRight(o.Stderr, "\n"))
	}
	var end string
	switch {
	case o.ExitCode == nil && o.Operation != "":
		end = fmt.Sprintf("[still running after %d ms, as the operation %s]", o.DurationMS, o.Operation)
	case o.ExitCode == nil:
		end = fmt.Sprintf("[still running after %d ms]", o.DurationMS)
	default:
		end = fmt.Sprintf("[exit code %d, %d ms]", *o.ExitCode, o.DurationMS)
	}
	if o.TimedOut {
		end = fmt.Sprintf("[timed out after %d ms; the command and all that it started were ended]", o.DurationMS)
	}
	if o.Denied != "" {
		parts = append(parts, "["+o.Denied+"]")
	}
	return strings.Join(append(parts, end), "\n")
}
