package setup

import (
	"fmt"
	"io"
	"time"

	"pixels/internal/units"
)

// report prints what happens, a line a step.
type report struct {
	out    io.Writer
	failed bool
}

// had reports something that needed no work.
func (r *report) had(since time.Time, format string, args ...any) {
	r.line("ok", fmt.Sprintf(format, args...)+fmt.Sprintf(" (was there, %s)", took(since)))
}

// did reports something that was done now.
func (r *report) did(since time.Time, format string, args ...any) {
	r.line("ok", fmt.Sprintf(format, args...)+fmt.Sprintf(" (new, %s)", took(since)))
}

// note reports what is neither done nor wrong.
func (r *report) note(format string, args ...any) { r.line("--", fmt.Sprintf(format, args...)) }

// warn reports what works worse than it could, and how to mend it.
func (r *report) warn(mend, format string, args ...any) {
	r.line("warn", fmt.Sprintf(format, args...))
	r.mend(mend)
}

// good reports a check that passed.
func (r *report) good(format string, args ...any) { r.line("ok", fmt.Sprintf(format, args...)) }

// fail reports a check that did not pass, and how to mend it.
func (r *report) fail(mend, format string, args ...any) {
	r.failed = true
	r.line("FAIL", fmt.Sprintf(format, args...))
	r.mend(mend)
}

func (r *report) mend(mend string) {
	if mend != "" {
		fmt.Fprintf(r.out, "        -> %s\n", mend)
	}
}

func (r *report) line(mark, text string) { fmt.Fprintf(r.out, "  %-5s %s\n", mark, text) }

// took is the time since a moment, for people.
func took(since time.Time) time.Duration { return units.Rounded(time.Since(since)) }
