package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixels/incus/incustest"
	"pixels/internal/server"
	"pixels/internal/testenv"
)

// asProgram makes the test binary behave as pixels-mcp, so that what runs as a subprocess is under the race detector too.
const asProgram = "RUN_AS_PIXELS_MCP"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(alone(m))
}

// alone runs the tests with a configuration, a policy and a state of their own, which are none.
func alone(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pixels-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for name, value := range map[string]string{
		"XDG_CONFIG_HOME": filepath.Join(dir, "config"), "XDG_STATE_HOME": filepath.Join(dir, "state"), asProgram: "1",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	return m.Run()
}

// self returns the path of the program.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a server for an owner of the test, and destroys what that owner has at the end.
func start(t *testing.T, path, owner string) *server.Client {
	t.Helper()
	c, err := server.Start(t.Context(), path, "serve", "--owner", owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var list struct{ Sandboxes []struct{ Name string } }
		if err := c.Call(ctx, "list_sandboxes", nil, &list); err != nil {
			t.Error(err)
		}
		var names []string
		for _, s := range list.Sandboxes {
			names = append(names, s.Name)
		}
		if len(names) > 0 {
			if err := c.Call(ctx, "destroy_sandbox", map[string]any{"names": names}, nil); err != nil {
				t.Error(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestTheJobOnIncusOverStdio(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	c := start(t, self(t), fmt.Sprintf("e2e-%d", os.Getpid()))
	call := func(tool string, arguments map[string]any, out any) {
		t.Helper()
		if err := c.Call(t.Context(), tool, arguments, out); err != nil {
			t.Fatal(err)
		}
	}
	var made struct{ Name, State, Address, From string }
	call("create_sandbox", map[string]any{"name": "base", "egress": "agent"}, &made)
	if made.Name != "base" || made.State != "running" || made.Address == "" || made.From != "pixels/base" {
		t.Errorf("created %+v", made)
	}
	var ran struct {
		ExitCode       int `json:"exit_code"`
		Stdout, Stderr string
	}
	call("exec", map[string]any{"name": "base", "command": "echo kept >note; id -un; sudo id -un; echo err >&2; exit 3"}, &ran)
	if ran.ExitCode != 3 || ran.Stdout != "pixel\nroot\n" || ran.Stderr != "err\n" {
		t.Errorf("exec gives %+v", ran)
	}
	call("create_checkpoint", map[string]any{"name": "base", "label": "ready"}, nil)
	var cloned struct {
		Clones []struct {
			Name, Address, Error string
			Exec                 struct{ Stdout string }
		}
		Made int
	}
	call("clone_sandbox", map[string]any{"source": "base:ready", "count": 3, "command": "hostname; getent hosts $(hostname) | wc -l; cat note"}, &cloned)
	addresses := map[string]bool{made.Address: true}
	for _, clone := range cloned.Clones {
		if clone.Exec.Stdout != clone.Name+"\n1\nkept\n" || clone.Error != "" {
			t.Errorf("a clone is %+v", clone)
		}
		addresses[clone.Address] = true
	}
	if cloned.Made != 3 || len(addresses) != 4 {
		t.Errorf("made %d clones; the addresses are %v", cloned.Made, addresses)
	}
}

func TestTwoServersTakeOneNameAtOnce(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	path, owner := self(t), fmt.Sprintf("race-%d", os.Getpid())
	clients := []*server.Client{start(t, path, owner), start(t, path, owner)}
	for round := range testenv.Rounds(4, 40) {
		errs := make(chan error, len(clients))
		for _, c := range clients {
			go func() {
				errs <- c.Call(t.Context(), "create_sandbox", map[string]any{"name": "wanted"}, nil)
			}()
		}
		won := 0
		for range clients {
			err := <-errs
			var told *server.CallError
			switch {
			case err == nil:
				won++
			case !errors.As(err, &told) || !strings.Contains(told.Text, "already exists"):
				t.Errorf("round %d: %v", round, err)
			}
		}
		if won != 1 {
			t.Errorf("round %d: %d won", round, won)
		}
		if err := clients[round%2].Call(t.Context(), "destroy_sandbox", map[string]any{"names": []string{"wanted"}}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWithoutIncusEveryCallSaysWhatToDo(t *testing.T) {
	t.Setenv("PIXELS_INCUS_SOCKET", t.TempDir()+"/none.socket")
	c, err := server.Start(t.Context(), self(t), "serve")
	if err != nil {
		t.Fatal(err)
	}
	for tool, arguments := range map[string]map[string]any{
		"list_sandboxes": nil, "create_sandbox": {"name": "x"}, "exec": {"name": "x", "command": "true"},
		"create_checkpoint": {"name": "x"}, "clone_sandbox": {"source": "x:y"},
	} {
		var told *server.CallError
		if err := c.Call(t.Context(), tool, arguments, nil); !errors.As(err, &told) || !strings.Contains(told.Text, "pixels-mcp setup") {
			t.Errorf("%s: %v", tool, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	t.Parallel()
	path := self(t)
	for name, c := range map[string]struct {
		args     []string
		code     int
		contains string
	}{
		"unknown command":  {[]string{"sreve"}, 2, "serve"},
		"a level down":     {[]string{"requests", "aprove"}, 2, "did you mean approve?"},
		"of nothing near":  {[]string{"network", "frobnicate"}, 2, "network --help"},
		"version by flag":  {[]string{"--version"}, 0, "pixels-mcp"},
		"a later command":  {[]string{"base", "build", "dev"}, 2, "is not there yet"},
		"its server":       {[]string{"mcp", "--listen-addr", "x"}, 2, "give one with a port"},
		"unknown flag":     {[]string{"serve", "--htpt"}, 2, "--help"},
		"extra argument":   {[]string{"serve", "now"}, 2, "no arguments"},
		"missing file":     {[]string{"--config", "/absent.toml", "config"}, 1, "/absent.toml"},
		"wrong setting":    {[]string{"--defaults-memory", "much", "config"}, 1, "--defaults-memory"},
		"owner of nothing": {[]string{"--owner", "a b", "config"}, 2, "--owner"},
		"version is fine":  {[]string{"version"}, 0, "pixels-mcp"},
		"settings to read": {[]string{"config"}, 0, "PIXELS_INCUS_POOL"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			var out bytes.Buffer
			cmd := exec.CommandContext(t.Context(), path, c.args...)
			cmd.Stdout, cmd.Stderr = &out, &out
			_ = cmd.Run() // the exit code tells
			if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(out.String(), c.contains) {
				t.Errorf("exit code %d, want %d, with %q in:\n%s", code, c.code, c.contains, out.String())
			}
		})
	}
}

// Help and errors speak with the name that was typed.
func TestItSpeaksWithTheNameThatWasTyped(t *testing.T) {
	t.Parallel()
	short := filepath.Join(t.TempDir(), "pixels")
	if err := os.Symlink(self(t), short); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--help"}, {"setup", "--help"}, {"requests", "aprove"}, {"network", "show"}, {"requests", "approve"}, {"--version"}, {"version"}, {"policy", "check", "--as", "x"}} {
		out, _ := exec.CommandContext(t.Context(), short, args...).CombinedOutput() // the exit code is another test's
		for _, line := range strings.Split(string(out), "\n") {
			if strings.Contains(line, "pixels-mcp") {
				t.Errorf("%v says %q", args, line)
			}
		}
		if !strings.Contains(string(out), "pixels ") {
			t.Errorf("%v says %s", args, out)
		}
	}
}

// What runs in the background goes on when its server has gone, and the next server knows it.
func TestARunOutlivesItsServer(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	path, owner := self(t), fmt.Sprintf("runs-%d", os.Getpid())
	next := start(t, path, owner)
	first, err := server.Start(t.Context(), path, "serve", "--owner", owner)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Call(t.Context(), "create_sandbox", map[string]any{"name": "box"}, nil); err != nil {
		t.Fatal(err)
	}
	var started struct{ Operation string }
	err = first.Call(t.Context(), "exec", map[string]any{"name": "box", "command": "for i in 1 2 3 4 5 6; do echo $i; sleep 2; done", "background": true}, &started)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Operations []struct {
			State string
			Exec  struct {
				ExitCode *int `json:"exit_code"`
				Stdout   string
			}
		}
	}
	for _, want := range []string{"running", "ended"} {
		timeout := map[string]any{"running": 0, "ended": 30}[want]
		if err := next.Call(t.Context(), "wait", map[string]any{"ids": []string{started.Operation}, "timeout": timeout}, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Operations) != 1 || got.Operations[0].State != want {
			t.Fatalf("it is %+v, want %s", got, want)
		}
	}
	if e := got.Operations[0].Exec; e.ExitCode == nil || *e.ExitCode != 0 || e.Stdout != "1\n2\n3\n4\n5\n6\n" {
		t.Errorf("it left %+v", e)
	}
}
