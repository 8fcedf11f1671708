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
	for made := 1; made < 100; made += min(33, 100-made) {
		pixels("clone", "-q", "bench:ready", "-n", fmt.Sprint(min(33, 100-made)))
	}
	measure("incus list, of 100", 0, func() time.Duration { return run("incus", "list") })
	measure("pixels list, of 100", 150*time.Millisecond, func() time.Duration { return pixels("list") })
}
