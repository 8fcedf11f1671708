package main

import (
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
	dir, err := filepath.Abs("../../.cache/inspector")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node")); err != nil {
		t.Skip("the MCP Inspector is not installed: scripts/inspector.sh does it, and `make test` runs that")
	}
	owner := fmt.Sprintf("test-inspector-%d", os.Getpid())
	inspect := func(arguments ...string) (out string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, "node"), append([]string{
			filepath.Join(dir, "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"), "--cli", self(t), "serve", "--owner", owner,
			"-e", "RUN_AS_PIXELS_MCP=1",
		}, arguments...)...)
		cmd.Env = append(os.Environ(), "RUN_AS_PIXELS_MCP=1")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("inspector %v: %v\n%s%s", arguments, err, b, stderr.String())
		}
		return string(b)
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
