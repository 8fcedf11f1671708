package sandbox

import (
	"fmt"
	"regexp"
	"time"

	"pixels/internal/fault"
)

// Terminal is one that a command is to have. What it writes comes to its Stdout then, all in one, and Stdin is what is typed.
type Terminal struct {
	Type    string // of the one that it is shown on, as TERM has it; empty means a plain xterm
	Size    TerminalSize
	Resized <-chan TerminalSize // may be nil
}

// TerminalSize is in characters.
type TerminalSize struct{ Columns, Rows int }

// Console is a login shell in place of a command. With a Session it goes on when the call has ended, and who comes later joins it.
type Console struct {
	Session string // empty means that the shell ends with its terminal
}

// ExitDetached is the exit code of a console whose session goes on.
const ExitDetached = 90

// Session is a console session that goes on.
type Session struct {
	Name     string
	Attached int // terminals that it is shown on
	Created  time.Time
	Command  string // what runs in it in the foreground, as the sandbox says
}

var sessionRule = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// CheckSession tells whether a session may be called so.
func CheckSession(name string) error {
	if !sessionRule.MatchString(name) {
		return fault.About(ErrInvalid, fmt.Sprintf("session %s", Quote(name)), "is invalid: use 1 to 64 letters, digits, dots, underscores and dashes")
	}
	return nil
}
