package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/muesli/cancelreader"
	"golang.org/x/term"

	"pixels/internal/program"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// screen is this process's terminal, given to a command in a sandbox.
type screen struct {
	in, out *os.File
	keys    cancelreader.CancelReader // what is typed, until close: what comes later is the next program's
	before  *term.State
	resized chan sandbox.TerminalSize
	stop    context.CancelFunc
	cli     *cli
	keeper  *keeper
}

// openScreen puts the terminal into raw mode, until close.
func (a *cli) openScreen() (*screen, error) {
	in, ok := terminal(a.in)
	out, okOut := terminal(a.raw)
	if !ok || !okOut {
		return nil, usageError{errors.New("stdin and stdout are no terminal that could be given to it; without --tty it runs with pipes")}
	}
	keys, err := cancelreader.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("read the terminal: %w", err)
	}
	as, _ := settings(in) // without them there is no keeper
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		_ = keys.Close()
		return nil, fmt.Errorf("put the terminal into raw mode: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &screen{in: in, out: out, keys: keys, before: before, resized: make(chan sandbox.TerminalSize), stop: stop, cli: a, keeper: keep(in, as)}
	a.rawMode = true
	// Shells put a terminal back themselves after a program that a signal ended, which is how a crash ends then; see keeper for the rest.
	debug.SetTraceback("crash")
	go s.follow(ctx)
	return s, nil
}

// follow tells of each new size.
func (s *screen) follow(ctx context.Context) {
	changed := make(chan os.Signal, 1)
	onResize(changed)
	defer signal.Stop(changed)
	for {
		select {
		case <-changed:
			select {
			case s.resized <- s.size():
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// size is that of the terminal, or a usual one where it can't be told.
func (s *screen) size() sandbox.TerminalSize {
	columns, rows, err := term.GetSize(int(s.out.Fd()))
	if err != nil || columns < 1 || rows < 1 {
		return sandbox.TerminalSize{Columns: 80, Rows: 24}
	}
	return sandbox.TerminalSize{Columns: columns, Rows: rows}
}

func (s *screen) streams() manager.Streams {
	return manager.Streams{In: s.keys, Out: s.out, Terminal: &sandbox.Terminal{Type: os.Getenv("TERM"), Size: s.size(), Resized: s.resized}}
}

// modesOff takes back what a program that was cut off may have left set: mouse reports, focus reports, bracketed paste, the alternate
// screen, a hidden cursor, the application mode of keys, colours; see "XTerm Control Sequences".
const modesOff = "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[?1049l\x1b[?25h\x1b[?1l\x1b>\x1b[0m"

// close puts the terminal back as it was. cutOff tells that what ran on it did not come to its own end.
func (s *screen) close(cutOff bool) {
	s.stop()
	s.keys.Cancel()
	s.cli.rawMode = false
	debug.SetTraceback("single")
	if cutOff {
		fmt.Fprint(s.out, modesOff)
	}
	defer s.keeper.dismiss()
	if err := term.Restore(int(s.in.Fd()), s.before); err != nil {
		fmt.Fprintf(os.Stderr, "%s: the terminal could not be put back as it was, `reset` may: %v\n", program.Name, err)
	}
}
