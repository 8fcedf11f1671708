package sandbox

import (
	"slices"
	"strings"
	"time"

	"pixels/internal/fault"
)

// RunState is what a run is doing.
type RunState string

// The states of a run. Lost is one of which nobody knows how it ended: its sandbox died while it ran.
const (
	RunRunning RunState = "running"
	RunEnded   RunState = "ended"
	RunLost    RunState = "lost"
)

// Run is a command that goes on behind the call that started it, and behind the process that was called.
type Run struct {
	ID             string // within the sandbox
	Command        string // the beginning of what it runs, as the sandbox says
	State          RunState
	ExitCode       int // -1 when it is lost
	TimedOut       bool
	Cancelled      bool
	Started, Ended time.Time
	Stdout, Stderr RunOutput
}

// RunOutput is a part of an output.
type RunOutput struct {
	Head, Tail []byte // Tail is for both ends of an output alone
	Size       int64  // bytes that there are so far
}

// RunQuery asks for a run.
type RunQuery struct {
	Wait   time.Duration // for its end
	Cancel bool          // ends it first, with all that it started
	Limit  int64         // bytes of each output
	// Where in the outputs to begin; negative for their two ends, up to Limit of each.
	Stdout, Stderr int64
}

// Feed is what a run that goes on is given.
type Feed struct {
	Stdin  string // written to its stdin, which must have been kept open
	Signal string // then sent to its process group, by its name without SIG; EndOfInput ends stdin instead
}

// EndOfInput is in place of the name of a signal where stdin is to end.
const EndOfInput = "EOF"

// Signals are those that a run can be sent, by name.
var Signals = []string{"INT", "TERM", "HUP", "QUIT", "KILL", "USR1", "USR2", "STOP", "CONT", "WINCH", EndOfInput}

// Check finds what is wrong with it.
func (f Feed) Check() error {
	if f.Signal != "" && !slices.Contains(Signals, f.Signal) {
		return fault.About(ErrInvalid, "signal "+Quote(f.Signal), "is invalid: use one of %s", strings.Join(Signals, ", "))
	}
	return nil
}

// IsRun tells whether an ID has the form of a run's.
func IsRun(id string) bool { return strings.Contains(id, ".") }
