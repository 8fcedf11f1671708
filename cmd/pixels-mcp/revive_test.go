package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixels/incus/incustest"
	"pixels/internal/server"
	"pixels/internal/setup"
)

// An incusd that is killed takes no sandbox with it: the calls under way end with an error, set-up brings it back, and the
// same server works on with the same sandboxes.
func TestIncusKilledAndRevived(t *testing.T) {
	incustest.Need(t)
	if _, err := os.Stat("/run/systemd/system"); err == nil || os.Geteuid() != 0 {
		t.Skip("only as root where no systemd runs: elsewhere incusd is not set-up's to start")
	}
	path, owner := self(t), fmt.Sprintf("revive-%d", os.Getpid())
	revive := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		if out, err := exec.CommandContext(ctx, path, "setup").CombinedOutput(); err != nil {
			t.Fatalf("setup: %v\n%s", err, out)
		}
	}
	c := start(t, path, owner)
	t.Cleanup(revive) // before the sandboxes are removed, also when the test fails in between
	for _, name := range []string{"running", "other"} {
		if err := c.Call(t.Context(), "create_sandbox", map[string]any{"name": name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	ran := func(line string) (string, error) {
		var out struct{ Stdout string }
		err := c.Call(t.Context(), "exec", map[string]any{"name": "running", "command": line}, &out)
		return strings.TrimSpace(out.Stdout), err
	}
	if _, err := ran("echo kept >note"); err != nil {
		t.Fatal(err)
	}
	underway := make(chan error, 1)
	go func() {
		_, err := ran("touch begun; sleep 20")
		underway <- err
	}()
	for {
		if out, err := ran("ls"); err != nil {
			t.Fatal(err)
		} else if strings.Contains(out, "begun") {
			break
		}
	}
	pid := setup.RunningIncusd()
	if pid == 0 {
		t.Fatal("there is no incusd to kill")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var told *server.CallError
	select {
	case err := <-underway:
		if !errors.As(err, &told) || !strings.Contains(told.Text, "pixels-mcp setup") {
			t.Errorf("the call under way: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the call under way does not end")
	}
	if _, err := ran("true"); !errors.As(err, &told) || !strings.Contains(told.Text, "pixels-mcp setup") {
		t.Errorf("the next call: %v", err)
	}
	revive()
	if out, err := ran("hostname; cat note"); err != nil || out != "running\nkept" {
		t.Errorf("after its revival: %q, %v", out, err)
	}
}
