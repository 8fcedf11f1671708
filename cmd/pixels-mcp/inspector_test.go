package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pixels/incus/incustest"
	"pixels/tools"
)

// The MCP Inspector is a client that we did not write: each call starts the server anew, so that what a call made must be
// there for the next one.
func TestTheInspectorDrivesTheServer(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	run := inspector(t)
	owner := fmt.Sprintf("test-inspector-%d", os.Getpid())
	inspect := func(arguments ...string) (out string) {
		t.Helper()
		return run(append([]string{self(t), "serve", "--owner", owner, "-e", "RUN_AS_PIXELS_MCP=1"}, arguments...)...)
	}
	call := func(tool string, arguments ...string) (out map[string]any) {
		t.Helper()
		args := []string{"--method", "tools/call", "--tool-name", tool}
		for _, a := range arguments {
			args = append(args, "--tool-arg", a)
		}
		var got struct {
			StructuredContent map[string]any
			IsError           bool
		}
		text := inspect(args...)
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.IsError {
			t.Fatalf("%s %v: %v\n%s", tool, arguments, err, text)
		}
		return got.StructuredContent
	}
	var list struct{ Tools []struct{ Name string } }
	if err := json.Unmarshal([]byte(inspect("--method", "tools/list")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Tools) != len(tools.All())-1 { // all but mint_token, which is for who has a token
		t.Errorf("it lists %d tools of %d", len(list.Tools), len(tools.All()))
	}
	t.Cleanup(func() { call("destroy_sandbox", `names=["base","base-1","base-2"]`) })
	if made := call("create_sandbox", "name=base"); made["state"] != "running" {
		t.Errorf("created %v", made)
	}
	if ran := call("exec", "name=base", "command=echo kept >note; id -un"); ran["exit_code"] != 0.0 || ran["stdout"] != "pixel\n" {
		t.Errorf("exec %v", ran)
	}
	if made := call("create_checkpoint", "name=base", "label=ready"); made["checkpoint"] != "base:ready" {
		t.Errorf("checkpoint %v", made)
	}
	if got := call("clone_sandbox", "source=base:ready", "count=2", "command=cat note"); got["made"] != 2.0 || got["failed"] != 0.0 {
		t.Errorf("clones %v", got)
	}
	if got := call("destroy_sandbox", `names=["base","base-1","base-2"]`); len(got["destroyed"].([]any)) != 3 {
		t.Errorf("destroyed %v", got)
	}
	if got := call("list_sandboxes"); len(got["sandboxes"].([]any)) != 0 {
		t.Errorf("left are %v", got)
	}
}

// inspector runs the MCP Inspector, which is a client that we did not write.
func inspector(t *testing.T) func(arguments ...string) (out string) {
	t.Helper()
	dir, err := filepath.Abs("../../.cache/inspector")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node")); err != nil {
		t.Skip("the MCP Inspector is not installed: scripts/inspector.sh does it, and `make test` runs that")
	}
	return func(arguments ...string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, "node"), append([]string{filepath.Join(dir, "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"), "--cli"}, arguments...)...)
		cmd.Env = append(os.Environ(), "RUN_AS_PIXELS_MCP=1")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("inspector %v: %v\n%s%s", arguments, err, b, stderr.String())
		}
		return string(b)
	}
}

// The same by both transports over HTTP, of a server that goes on between the calls.
func TestTheInspectorByHTTP(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	run := inspector(t)
	served := serveByHTTP(t, self(t), fmt.Sprintf("inspector-%d", os.Getpid()))
	for transport, path := range map[string]string{"http": "/mcp", "sse": "/sse"} {
		inspect := func(arguments ...string) string {
			return run(append([]string{served.base + path, "--transport", transport, "--header", "Authorization: Bearer " + served.secret}, arguments...)...)
		}
		var list struct{ Tools []struct{ Name string } }
		if err := json.Unmarshal([]byte(inspect("--method", "tools/list")), &list); err != nil || len(list.Tools) != len(tools.All()) {
			t.Errorf("%s lists %d tools, %v", transport, len(list.Tools), err)
		}
		if got := inspect("--method", "tools/call", "--tool-name", "create_sandbox", "--tool-arg", "name="+transport, "--tool-arg", "egress=none"); !strings.Contains(got, `"running"`) {
			t.Errorf("%s creates %s", transport, got)
		}
		if got := inspect("--method", "tools/call", "--tool-name", "exec", "--tool-arg", "name="+transport, "--tool-arg", "command=echo from $(hostname)"); !strings.Contains(got, "from "+transport) {
			t.Errorf("%s runs %s", transport, got)
		}
		if got := inspect("--method", "prompts/list"); !strings.Contains(got, "spawn_workers") {
			t.Errorf("%s has the prompts %s", transport, got)
		}
	}
}

// byHTTP is a server, and a token for it.
type byHTTP struct {
	base, secret string
	pid          int
}

// serveByHTTP starts a server that ends with the test, makes a token for it, and ends that with what was made by it.
func serveByHTTP(t *testing.T, program, name string) byHTTP {
	t.Helper()
	b, err := exec.Command(program, "token", "create", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(program, "token", "revoke", "--destroy", name).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	server := exec.Command(program, "serve", "--http", "127.0.0.1:0")
	log, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(os.Interrupt)
		if err := server.Wait(); err != nil {
			t.Errorf("the server ends with %v", err)
		}
	})
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if at, ok := strings.CutPrefix(lines.Text(), "MCP:  "); ok {
			go func() { // what it logs else is nobody's
				for lines.Scan() {
				}
			}()
			return byHTTP{strings.TrimSuffix(at, "/mcp"), strings.TrimSpace(string(b)), server.Process.Pid}
		}
	}
	t.Fatal("the server does not say where it listens")
	return byHTTP{}
}
