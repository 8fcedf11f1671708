package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pixels/incus/incustest"
	"pixels/internal/server"
)

// What a call costs by HTTP more than on stdin and stdout, and what a server takes that does nothing. `make bench` runs it; nothing is
// asserted.
func TestBenchmarkHTTP(t *testing.T) {
	if os.Getenv("PIXELS_BENCH") == "" {
		t.Skip("`make bench` runs it")
	}
	incustest.Need(t)
	program, err := filepath.Abs("../../bin/pixels")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	served := serveByHTTP(t, program, fmt.Sprintf("bench-%d", os.Getpid()))
	time.Sleep(3 * time.Second) // what it does at its start is over
	t.Logf("%-46s %4d MB (bound 40)", "server by HTTP that does nothing", resident(t, served.pid)>>20)
	remote, err := server.Remote{URL: served.base, Secret: served.secret}.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	local, err := server.Start(ctx, program, "serve", "--owner", fmt.Sprintf("bench-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	const rounds = 500
	median := func(c *server.Client) (p50, p95 time.Duration) {
		var took []time.Duration
		for range rounds {
			begun := time.Now()
			if err := c.Call(ctx, "list_sandboxes", nil, nil); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(begun))
		}
		slices.Sort(took)
		return took[rounds/2], took[rounds*95/100]
	}
	median(local) // both are warm
	median(remote)
	local50, local95 := median(local)
	remote50, remote95 := median(remote)
	t.Logf("%-46s median %v, p95 %v", "a call on stdin and stdout", local50, local95)
	t.Logf("%-46s median %v, p95 %v: %v more (bound 2ms)", "a call by HTTP", remote50, remote95, remote50-local50)
}

// resident is how much memory a process has, in bytes.
func resident(t *testing.T, pid int) (bytes int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(rest, &bytes); err != nil {
				t.Fatal(err)
			}
		}
	}
	return bytes << 10
}
