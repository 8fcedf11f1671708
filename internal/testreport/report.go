package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

type name struct{ Package, Test string }

// event is one line of `go test -json`, as `go doc test2json` has it.
type event struct {
	name
	Action     string
	ImportPath string // of a build's output
	Output     string
	Elapsed    float64 // seconds
}

// test is one test, or a package when its name has none.
type test struct {
	name
	result   string // as an event's action: pass, fail or skip; run until it ended
	elapsed  float64
	children float64 // the time of its subtests
	output   strings.Builder
}

// own is the time in seconds that a test took without its subtests. Those that ran side by side may add up to more.
func (t *test) own() float64 { return max(0, t.elapsed-t.children) }

type report struct {
	mu    sync.Mutex
	tests map[name]*test
	good  bool
}

func (r *report) fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.good = false
}

func (r *report) get(n name) *test {
	if r.tests[n] == nil {
		r.tests[n] = &test{name: n, result: "run"}
	}
	return r.tests[n]
}

// read takes all events, which it also writes to save, and prints the line of each package and the output of what failed as
// they come.
func (r *report) read(from io.Reader, to, save io.Writer) error {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			if err := r.line(line, to, save); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line takes a line, of one go test at a time.
func (r *report) line(line []byte, to, save io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e event
	if json.Unmarshal(line, &e) != nil {
		_, _ = to.Write(line) // what go test prints before it knows its packages
	} else {
		r.take(e, to)
	}
	_, err := save.Write(line)
	return err
}

func (r *report) take(e event, to io.Writer) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(to, e.Output)
		return
	case "output":
		t := r.get(e.name)
		t.output.WriteString(e.Output)
		if e.Test == "" && e.Output != "PASS\n" {
			fmt.Fprint(to, e.Output)
		}
		return
	case "pass", "fail", "skip":
	case "run":
		r.get(e.name)
		return
	default:
		return
	}
	if e.Package == "" {
		return
	}
	t := r.get(e.name)
	t.result, t.elapsed = e.Action, e.Elapsed
	if e.Test == "" {
		r.endPackage(e.Package, to)
		return
	}
	for above := e.Test; strings.Contains(above, "/"); { // a name may have slashes of its own
		above = above[:strings.LastIndex(above, "/")]
		if parent := r.tests[name{e.Package, above}]; parent != nil {
			parent.children += max(e.Elapsed, t.children) // of subtests side by side a test's own time knows nothing
			break
		}
	}
	if e.Action == "fail" {
		fmt.Fprint(to, t.output.String())
	}
}

// endPackage prints what tests said that never ended: the package died, or ran into its limit.
func (r *report) endPackage(pkg string, to io.Writer) {
	for _, t := range r.sorted() {
		if t.Package == pkg && t.Test != "" && t.result == "run" {
			t.result = "fail"
			fmt.Fprintf(to, "--- FAIL: %s (never ended)\n%s", t.Test, t.output.String())
		}
	}
}

func (r *report) sorted() []*test {
	return slices.SortedFunc(maps.Values(r.tests), func(a, b *test) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Test, b.Test))
	})
}

// byOwnTime are the tests, the slowest first.
func (r *report) byOwnTime() (out []*test) {
	for _, t := range r.sorted() {
		if t.Test != "" && t.result != "skip" {
			out = append(out, t)
		}
	}
	slices.SortStableFunc(out, func(a, b *test) int { return cmp.Compare(b.own(), a.own()) })
	return out
}

// count is how many tests had a result; all that were begun when it is empty.
func (r *report) count(result string) (n int) {
	for _, t := range r.tests {
		if t.Test != "" && (result == "" || t.result == result) {
			n++
		}
	}
	return n
}

// readSkips reads the tests that may be skipped, and what they may say is the reason; lines that begin with # and empty ones are left out.
func readSkips(file string) (map[name][]string, error) {
	out := map[name][]string{}
	if file == "" {
		return out, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		what, reason, ok := strings.Cut(line, ": ")
		pkg, test, two := strings.Cut(what, " ")
		if !ok || !two || reason == "" {
			return nil, fmt.Errorf("%s:%d: want PACKAGE TEST: REASON", file, i+1)
		}
		out[name{pkg, test}] = append(out[name{pkg, test}], reason)
	}
	return out, nil
}
