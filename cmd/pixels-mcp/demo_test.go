package main

import (
	"bytes"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pixels/incus"
	"pixels/incus/incustest"
	"pixels/internal/demo"
)

// output collects what a program prints, to be looked at while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// startDemo runs the demo and returns once it has printed the words.
func startDemo(t *testing.T, path, words string) (*exec.Cmd, *output) {
	t.Helper()
	out := &output{}
	cmd := exec.Command(path, "demo")
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own, as a shell would give it: all of it gets the Ctrl-C.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // for a test that failed; else it has ended
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out.String(), words); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the demo does not come to %q:\n%s", words, out)
		}
	}
	return cmd, out
}

// demos is held by the test that plays the demo, for all demos have the same sandboxes.
var demos sync.Mutex

// left lists the demo's sandboxes, half-made ones too.
func left(t *testing.T) (names []string) {
	t.Helper()
	b, err := incus.OpenBackend(incus.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	list, err := b.List(t.Context(), demo.Owner)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}

func TestAnInterruptedDemoLeavesNothing(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	demos.Lock()
	defer demos.Unlock()
	path := self(t)
	for _, words := range []string{"create the sandbox", "write a file", "clone it 3", "clone it, with nothing", "destroy all"} {
		cmd, out := startDemo(t, path, words)
		time.Sleep(200 * time.Millisecond) // somewhere in the midst of it, for the next words may come much later
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the exit code tells
		if code := cmd.ProcessState.ExitCode(); code != 130 && !strings.Contains(out.String(), "STEP") {
			t.Errorf("interrupted at %q: exit code %d\n%s", words, code, out)
		}
		if names := left(t); len(names) > 0 {
			t.Errorf("interrupted at %q it leaves %v", words, names)
		}
	}
}

func TestWhatAKilledDemoLeftTheNextOneRemoves(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	demos.Lock()
	defer demos.Unlock()
	path := self(t)
	cmd, _ := startDemo(t, path, "clone it")
	server := children(t, cmd.Process.Pid)
	for _, pid := range append(server, cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	if len(server) != 1 || len(left(t)) == 0 {
		t.Fatalf("killed with its servers %v it leaves %v; there should be something", server, left(t))
	}
	out, err := exec.CommandContext(t.Context(), path, "demo").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "an earlier demo left") {
		t.Errorf("the next demo: %v\n%s", err, out)
	}
	if names := left(t); len(names) > 0 {
		t.Errorf("after it there are %v", names)
	}
}

// children lists the processes that a process started.
func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil {
		t.Fatalf("look for the children of %d: %v", pid, err)
	}
	for _, word := range strings.Fields(string(out)) {
		child, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, child)
	}
	return pids
}
