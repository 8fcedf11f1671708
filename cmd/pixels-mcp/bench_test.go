package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pixels/incus/incustest"
)

// The time that people wait for a command, with the start of its process. `make bench` runs it; nothing is asserted.
func TestBenchmarkCommands(t *testing.T) {
	if os.Getenv("PIXELS_BENCH") == "" {
		t.Skip("`make bench` runs it")
	}
	incustest.Need(t)
	program, err := filepath.Abs("../../bin/pixels")
	if err != nil {
		t.Fatal(err)
	}
	owner := fmt.Sprintf("bench-%d", os.Getpid())
	run := func(name string, args ...string) time.Duration {
		t.Helper()
		begun := time.Now()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
		return time.Since(begun)
	}
	pixels := func(args ...string) time.Duration {
		return run(program, append([]string{"--owner", owner}, args...)...)
	}
	defer func() {
		_ = exec.Command("sh", "-c", `"$0" --owner "$1" list -q | xargs "$0" --owner "$1" destroy --force`, program, owner).Run() // what it can't remove ends with its lease
	}()
	pixels("create", "bench", "--egress", "none", "--memory", "128MiB", "--ttl", "1h")
	pixels("checkpoint", "create", "bench", "--label", "ready")
	id, err := exec.Command("incus", "list", "--format", "csv", "--columns", "n", "user.pixels.owner="+owner).Output()
	if err != nil {
		t.Fatal(err)
	}
	instance := string(id[:len(id)-1])
	const rounds = 30
	measure := func(what string, bound time.Duration, once func() time.Duration) {
		var took []time.Duration
		for range rounds {
			took = append(took, once())
		}
		slices.Sort(took)
		t.Logf("%-46s median %4d ms, p95 %4d ms (bound %s)", what, took[rounds/2].Milliseconds(), took[rounds*95/100].Milliseconds(), bound)
	}
	measure("incus exec true", 0, func() time.Duration { return run("incus", "exec", instance, "true") })
	measure("pixels exec true, without the service", 150*time.Millisecond, func() time.Duration { return pixels("exec", "bench", "true") })
	measureServed(t, program, owner, measure, run)
	for made := 1; made < 100; made += min(33, 100-made) {
		pixels("clone", "-q", "bench:ready", "-n", fmt.Sprint(min(33, 100-made)))
	}
	measure("incus list, of 100", 0, func() time.Duration { return run("incus", "list") })
	measure("pixels list, of 100", 150*time.Millisecond, func() time.Duration { return pixels("list") })
}

// measureServed measures a command through a service: a server of its own, whose socket is another user's.
func measureServed(t *testing.T, program, sandbox string, measure func(string, time.Duration, func() time.Duration), run func(string, ...string) time.Duration) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "socket")
	server := exec.Command(program, "serve", "--socket", socket)
	input, err := server.StdinPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = input.Close()
		_ = server.Wait() // it was interrupted
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := os.Chown(socket, 65534, -1); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	served := func(args ...string) time.Duration {
		return run(program, append([]string{"--service", socket}, args...)...)
	}
	served("create", sandbox, "--egress", "none", "--memory", "128MiB", "--ttl", "1h")
	defer served("destroy", "--force", sandbox)
	measure("pixels exec true, with the service", 60*time.Millisecond, func() time.Duration { return served("exec", sandbox, "true") })
	measure("pixels list, with the service", 60*time.Millisecond, func() time.Duration { return served("list") })
}
