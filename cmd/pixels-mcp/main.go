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

	"pixels/internal/plain"
	"pixels/internal/program"

	"pixels/internal/view"
)

// Exit codes. exec gives the command's own.
const (
	exitFailed = 1
	exitUsage  = 2
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
	err := newRoot(&cli{in: os.Stdin, out: &plain.Writer{To: os.Stdout}, err: stderr, raw: os.Stdout}).ExecuteContext(ctx)
	stop()
	os.Exit(report(err))
}

// report prints what went wrong and returns the exit code for it.
func report(err error) int {
	var code exitCode
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, program.Name+": %s\n", strings.TrimSpace(view.Error(err, view.Terminal)))
		return exitUsage
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, program.Name+": interrupted")
		return 130
	}
	fmt.Fprintf(stderr, program.Name+": %s\n", view.Error(err, view.Terminal))
	return exitFailed
}
