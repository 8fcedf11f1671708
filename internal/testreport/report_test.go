package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const source = `package sample

import ("os"; "testing"; "time")

func TestGood(t *testing.T) { t.Run("group", func(t *testing.T) { for range 2 { t.Run("slow/er", func(t *testing.T) { t.Parallel(); wait() }) } }) }
func wait() { time.Sleep(20 * time.Millisecond) }
func TestBad(t *testing.T) { t.Error("this is what is wrong") }
func TestLeftOut(t *testing.T) { t.Skip("nothing answers") }
func TestTheProcessDies(t *testing.T) { os.Exit(3) }
`

// sample runs the tests of a module of its own, and returns what was printed.
func sample(t *testing.T, args ...string) (*report, string) {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{"go.mod": "module sample\n\ngo 1.26\n", "sample_test.go": source, "none/none.go": "package none\n"} {
		path := filepath.Join(dir, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	var out strings.Builder
	r := &report{tests: map[name]*test{}, good: true}
	if err := r.run(t.Context(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	return r, out.String()
}

func TestAReport(t *testing.T) {
	r, printed := sample(t, ".")
	if r.good {
		t.Error("failed tests make a good run")
	}
	for _, want := range []string{"this is what is wrong", "--- FAIL: TestTheProcessDies (never ended)", "FAIL\tsample"} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is not in what is printed:\n%s", want, printed)
		}
	}
	if pass, fail, skip := r.count("pass"), r.count("fail"), r.count("skip"); pass != 4 || fail != 2 || skip != 1 {
		t.Errorf("%d passed, %d failed, %d skipped", pass, fail, skip)
	}
	slow := r.byOwnTime()[0]
	if !strings.HasPrefix(slow.Test, "TestGood/group/slow/er") || slow.own() < 0.02 {
		t.Errorf("the slowest is %s with %.2f s", slow.Test, slow.own())
	}
	s, err := readSources("sample")
	if err != nil {
		t.Fatal(err)
	}
	if all := s.sleepsOf(slow.Test); len(all) != 1 || all[0].line != 6 {
		t.Errorf("its sleeps: %v", all)
	}
	if all := s.sleepsOf("TestBad"); len(all) != 0 {
		t.Errorf("sleeps of a test that has none: %v", all)
	}
}

func TestArgumentsOfSeveralRuns(t *testing.T) {
	for args, want := range map[string]string{"a b": "[[a b]]", "a --then b c --then d": "[[a] [b c] [d]]", "": "[[]]"} {
		if got := fmt.Sprint(split(strings.Fields(args), "--then")); got != want {
			t.Errorf("%q is %s, want %s", args, got, want)
		}
	}
}

func TestASkipNeedsAReason(t *testing.T) {
	r, _ := sample(t, "-run", "TestLeftOut", "./...")
	if !r.good {
		t.Error("go test fails")
	}
	var out strings.Builder
	if n := r.printSkips(&out, nil); n != 1 || !strings.Contains(out.String(), "nothing answers") {
		t.Errorf("%d unlisted skips:\n%s", n, out.String())
	}
	file := filepath.Join(t.TempDir(), "skips")
	if err := os.WriteFile(file, []byte("# comment\n\nsample TestLeftOut: it measures: slowly\nsample TestLeftOut: nothing answers\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	allowed, err := readSkips(file)
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if n := r.printSkips(&out, allowed); n != 0 || !strings.Contains(out.String(), "TestLeftOut: nothing answers") {
		t.Errorf("%d unlisted skips:\n%s", n, out.String())
	}
	allowed[name{"sample", "TestLeftOut"}] = []string{"it measures: slowly"}
	if n := r.printSkips(&out, allowed); n != 1 {
		t.Error("another reason than the list's is accepted")
	}
	for _, bad := range []string{"sample TestLeftOut\n", "sample: no test\n"} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSkips(file); err == nil || !slices.Contains(strings.Split(err.Error(), ":"), "1") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
