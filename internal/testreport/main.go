// Testreport runs `go test -json` and reports as people want to read it: a line for each package, the output of what
// failed, the slowest tests, and every test that was skipped. A skip fails the run unless its reason is on a list.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() {
	skips := flag.String("skips", "", "`file` with the tests that may be skipped, one a line: PACKAGE TEST: REASON that it gives")
	slowest := flag.Int("slowest", 10, "how many of the slowest tests are shown")
	sleeps := flag.Bool("sleeps", false, "show which sleeps the slowest tests can reach")
	save := flag.String("save", "", "`file` for what go test -json printed")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: testreport [flags] -- ARGUMENTS OF GO TEST [--and|--then ARGUMENTS OF ANOTHER]...")
		fmt.Fprintln(flag.CommandLine.Output(), "What --and joins runs side by side; what comes after --then runs when that has ended.")
		flag.PrintDefaults()
	}
	flag.Parse()
	allowed, err := readSkips(*skips)
	if err != nil {
		fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var to io.Writer = io.Discard
	if *save != "" {
		f, err := os.Create(*save)
		if err != nil {
			fatal(err)
		}
		defer f.Close()
		to = f
	}
	r := &report{tests: map[name]*test{}, good: true}
	for _, round := range split(flag.Args(), "--then") {
		var running errgroup.Group
		for _, args := range split(round, "--and") {
			running.Go(func() error { return r.run(ctx, args, os.Stdout, to) })
		}
		if err := running.Wait(); err != nil {
			fatal(err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	r.printSlowest(os.Stdout, *slowest, *sleeps)
	unlisted := r.printSkips(os.Stdout, allowed)
	fmt.Printf("%d cases: %d passed, %d failed, %d skipped\n", r.count("")-r.count("run"), r.count("pass"), r.count("fail"), r.count("skip"))
	if !r.good || unlisted > 0 {
		os.Exit(1)
	}
}

// split splits arguments at each separator.
func split(args []string, separator string) (out [][]string) {
	for {
		at := slices.Index(args, separator)
		if at < 0 {
			return append(out, args)
		}
		out, args = append(out, args[:at]), args[at+1:]
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "testreport:", err)
	os.Exit(1)
}

// run runs go test, prints what comes of each package, writes what go test -json prints to save, and returns when all have
// ended. The end of ctx interrupts go test, which ends its tests.
func (r *report) run(ctx context.Context, args []string, to, save io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := r.read(out, to, save)
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || readErr != nil {
		return errors.Join(readErr, err)
	}
	if err != nil {
		r.fail()
	}
	return nil
}

func (r *report) printSlowest(to io.Writer, n int, withSleeps bool) {
	all := r.byOwnTime()
	all = all[:min(n, len(all))]
	fmt.Fprintf(to, "\nThe slowest %d (time that subtests don't account for):\n", len(all))
	dirs := map[string]*sources{}
	for _, t := range all {
		fmt.Fprintf(to, "%8.2f s  %s %s\n", t.own(), t.Package, t.Test)
		if !withSleeps {
			continue
		}
		if dirs[t.Package] == nil {
			s, err := readSources(t.Package)
			if err != nil {
				fmt.Fprintf(to, "            (its source can't be read: %v)\n", err)
				continue
			}
			dirs[t.Package] = s
		}
		for _, sleep := range dirs[t.Package].sleepsOf(t.Test) {
			fmt.Fprintf(to, "            %s:%d: %s\n", filepath.Base(sleep.file), sleep.line, sleep.text)
		}
	}
}

// printSkips prints what was skipped, and returns how much of it no list explains.
func (r *report) printSkips(to io.Writer, allowed map[name][]string) (unlisted int) {
	var skipped []*test
	for _, t := range r.tests {
		if t.result == "skip" && t.Test != "" { // a package without tests is no test that was left out
			skipped = append(skipped, t)
		}
	}
	slices.SortFunc(skipped, func(a, b *test) int { return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Test, b.Test)) })
	fmt.Fprintf(to, "\n%d skipped:\n", len(skipped))
	for _, t := range skipped {
		said := t.output.String()
		at := slices.IndexFunc(allowed[t.name], func(reason string) bool { return strings.Contains(said, reason) })
		if at < 0 {
			unlisted++
			fmt.Fprintf(to, "  %s %s: NOT A REASON ON THE LIST:\n%s", t.Package, t.Test, said)
			continue
		}
		fmt.Fprintf(to, "  %s %s: %s\n", t.Package, t.Test, allowed[t.name][at])
	}
	return unlisted
}
