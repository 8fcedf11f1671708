// Command pixels-mcp is the MCP server of Pixels and its command line. It parses, prints and sets exit codes; what is
// done is done by the packages it joins.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"pixels/internal/fault"
	"pixels/internal/plain"
	"pixels/internal/program"

	"pixels/internal/view"
)

// Exit codes. exec gives the command's own.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4   // by the policy
	exitAsked       = 5   // a human must decide
	exitExec        = 125 // exec itself failed
	exitInterrupted = 130
)

// exitCode ends the program with a code when all that is to be said was said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is a mistake in how the program was called.
type usageError struct{ error }

// stderr is where errors are told, of which some have words of strangers.
var stderr = &plain.Writer{To: os.Stderr}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := newRoot(&cli{in: os.Stdin, out: &plain.Writer{To: os.Stdout}, err: stderr, raw: os.Stdout, rawErr: os.Stderr}).ExecuteContext(ctx)
	stop()
	os.Exit(report(err))
}

// report prints what went wrong and returns the exit code for it.
func report(err error) int {
	var code exitCode
	if err == nil {
		return 0
	}
	if errors.As(err, &code) {
		return int(code)
	}
	all := []error{err}
	var more several
	if errors.As(err, &more) {
		all = more
	}
	for _, one := range all {
		text := strings.TrimSpace(view.Error(one, view.Terminal))
		if errors.Is(one, context.Canceled) {
			text = "interrupted"
		}
		fmt.Fprintf(stderr, "%s: %s\n", program.Name, text)
	}
	return codeOf(all)
}

// codeOf is the exit code for errors: that of their kind, where they are all of one.
func codeOf(all []error) int {
	code := 0
	for _, err := range all {
		one := exitFailed
		var usage usageError
		var cut interrupted
		var failed execError
		switch {
		case errors.As(err, &cut), errors.Is(err, context.Canceled):
			return exitInterrupted
		case errors.As(err, &failed):
			one = exitExec
		case errors.As(err, &usage), errors.Is(err, fault.Invalid):
			one = exitUsage
		case errors.Is(err, fault.NotFound):
			one = exitNotFound
		case errors.Is(err, fault.Denied):
			one = exitDenied
		}
		if code != 0 && one != code {
			one = exitFailed
		}
		code = one
	}
	return code
}
