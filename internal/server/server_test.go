package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"github.com/rs/zerolog"

	"pixels/egress"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
	"pixels/tools"
)

// serve starts a server over backends in memory and returns a client of it. Both end with the test.
func serve(t *testing.T) *Client {
	t.Helper()
	session := tools.Session{
		Manager:    manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.None}),
		Operations: tools.NewOperations(t.Context()),
		Caller:     manager.Agent("tester"),
	}
	fromClient, toServer := io.Pipe()
	fromServer, toClient := io.Pipe()
	served := make(chan error, 1)
	go func() {
		err := New("test", session, zerolog.Nop()).Serve(context.Background(), fromClient, toClient)
		_ = toClient.Close() // as the end of its process would
		served <- err
	}()
	c, err := Connect(t.Context(), fromServer, toServer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("the server ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server does not end when its client has gone")
		}
	})
	return c
}

// answer calls a tool, checks the structured result against the tool's own schema, and returns it.
func answer(t *testing.T, c *Client, tool string, arguments map[string]any) (map[string]any, error) {
	t.Helper()
	var out map[string]any
	err := c.Call(t.Context(), tool, arguments, &out)
	if err != nil && out == nil {
		return nil, err
	}
	list, listErr := c.Tools(t.Context())
	if listErr != nil {
		t.Fatal(listErr)
	}
	for _, have := range list {
		if have.Name != tool {
			continue
		}
		var s jsonschema.Schema
		if err := json.Unmarshal(have.OutputSchema, &s); err != nil {
			t.Fatal(err)
		}
		resolved, err := s.Resolve(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := resolved.Validate(out); err != nil {
			t.Errorf("%s answers %v, against its schema: %v", tool, out, err)
		}
	}
	return out, err
}

func TestTheJobOverMCP(t *testing.T) {
	c := serve(t)
	must := func(tool string, arguments map[string]any) map[string]any {
		t.Helper()
		out, err := answer(t, c, tool, arguments)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if made := must("create_sandbox", map[string]any{"name": "base", "labels": map[string]string{"a": "b"}, "memory": "1GiB"}); made["name"] != "base" || made["state"] != "running" || made["egress"] != "none" {
		t.Errorf("created %v", made)
	}
	if ran := must("exec", map[string]any{"name": "base", "command": "echo kept >note; cat; exit 4", "stdin": "given"}); ran["exit_code"] != 4.0 || ran["stdout"] != "given" {
		t.Errorf("exec gives %v", ran)
	}
	if ran := must("exec", map[string]any{"name": "base", "command": []string{"echo", "$HOME"}}); ran["stdout"] != "$HOME\n" {
		t.Errorf("exec of a list gives %v", ran)
	}
	if made := must("create_checkpoint", map[string]any{"name": "base", "label": "ready", "description": "d"}); made["checkpoint"] != "base:ready" || made["description"] != "d" {
		t.Errorf("checkpoint %v", made)
	}
	if list := must("list_checkpoints", map[string]any{"name": "base"}); len(list["checkpoints"].([]any)) != 1 {
		t.Errorf("checkpoints %v", list)
	}
	if got := must("restore_checkpoint", map[string]any{"name": "base", "label": "ready"}); got["state"] != "running" {
		t.Errorf("restored %v", got)
	}
	if got := must("set_sandbox_state", map[string]any{"name": "base", "state": "paused"}); got["state"] != "paused" {
		t.Errorf("paused %v", got)
	}
	if got := must("set_sandbox_state", map[string]any{"name": "base", "state": "running"}); got["state"] != "running" {
		t.Errorf("running again %v", got)
	}
	if got := must("extend_sandbox", map[string]any{"name": "base", "ttl": "2d"}); got["expires_at"] == nil {
		t.Errorf("extended %v", got)
	}
	clones := must("clone_sandbox", map[string]any{"source": "base:ready", "names": []string{"w1", "base", "w3"}, "command": "hostname; cat note"})
	if clones["made"] != 2.0 || clones["failed"] != 1.0 {
		t.Errorf("clones %v", clones)
	}
	first := clones["clones"].([]any)[0].(map[string]any)
	if first["exec"].(map[string]any)["stdout"] != "w1\nkept\n" {
		t.Errorf("the first clone is %v", first)
	}
	if list := must("list_sandboxes", nil); len(list["sandboxes"].([]any)) != 3 {
		t.Errorf("list %v", list)
	}
	if list := must("list_sandboxes", map[string]any{"limit": 2}); len(list["sandboxes"].([]any)) != 2 || list["next_cursor"] != "w1" {
		t.Errorf("a page %v", list)
	}
	if d := must("delete_checkpoint", map[string]any{"name": "base", "label": "ready"}); d["deleted"] != "base:ready" {
		t.Errorf("deleted %v", d)
	}
	if d := must("destroy_sandbox", map[string]any{"names": []string{"base", "w1", "w3", "absent"}}); len(d["destroyed"].([]any)) != 3 || len(d["missing"].([]any)) != 1 {
		t.Errorf("destroyed %v", d)
	}
	if list := must("list_sandboxes", nil); len(list["sandboxes"].([]any)) != 0 {
		t.Errorf("left is %v", list)
	}
}

func TestBadArgumentsAreNamed(t *testing.T) {
	c := serve(t)
	for _, bad := range []struct {
		tool      string
		arguments map[string]any
		contains  []string
	}{
		{"create_sandbox", map[string]any{"nmae": "x"}, []string{`"nmae"`, "did you mean name", "egress"}},
		{"create_sandbox", map[string]any{"name": 7}, []string{`"name"`, "number", "string"}},
		{"create_sandbox", map[string]any{"memory": "much"}, []string{`"memory"`, "512MiB"}},
		{"create_sandbox", map[string]any{"labels": []string{"a"}}, []string{`"labels"`, "object"}},
		{"create_sandbox", map[string]any{"egress": "open"}, []string{"egress", "allowlist"}},
		{"create_sandbox", map[string]any{"egress": "allowlist", "allow": []string{"*.com"}}, []string{"allow", "*.example.com"}},
		{"create_sandbox", map[string]any{"egress": "none", "allow": []string{"a.example"}}, []string{"allow", "agent"}},
		{"allow_domain", map[string]any{"name": "x", "domains": []string{"10.0.0.0/8"}, "reason": "r"}, []string{"domain", "human"}},
		{"allow_domain", map[string]any{"name": "x", "domains": []string{"a.example"}, "reason": ""}, []string{"reason"}},
		{"deny_domain", map[string]any{"name": "x", "domains": []string{}}, []string{"domains is empty"}},
		{"clone_sandbox", map[string]any{}, []string{`"source"`, "missing"}},
		{"clone_sandbox", map[string]any{"source": "a:b", "count": "three"}, []string{`"count"`, "whole number"}},
		{"clone_sandbox", map[string]any{"source": "a:b", "count": 0}, []string{`"count"`, "1 to 64"}},
		{"exec", map[string]any{"name": "x"}, []string{`"command"`, "missing"}},
		{"exec", map[string]any{"name": "x", "command": map[string]any{"a": 1}}, []string{`"command"`, "string for the shell"}},
		{"exec", map[string]any{"name": "x", "command": []any{"a", 1}}, []string{`"command"`, "list of strings"}},
		{"exec", map[string]any{"name": "x", "command": "y", "timeout": -1}, []string{`"timeout"`, "2.592e+06 seconds"}},
		{"wait", map[string]any{"ids": []string{}}, []string{`"ids"`, "1 to 64"}},
		{"wait", map[string]any{"ids": []string{"op-x"}}, []string{`"op-x"`, "list_sandboxes"}},
		{"wait", map[string]any{"ids": []string{"x.y"}}, []string{`"x.y"`, "operation"}},
		{"wait", map[string]any{"ids": []string{"x.abcdefgh"}}, []string{`"x"`, "create_sandbox"}},
		{"wait", map[string]any{"ids": []string{"x.abcdefgh"}, "timeout": 41}, []string{`"timeout"`, "40"}},
		{"exec", map[string]any{"name": "x", "command": "y"}, []string{`"x"`, "create_sandbox"}},
		{"create_sandbox", map[string]any{"ttl": "soon"}, []string{`"ttl"`, "7d"}},
		{"extend_sandbox", map[string]any{"name": "x", "ttl": ""}, []string{`"ttl"`, "7d"}},
		{"set_sandbox_state", map[string]any{"name": "x", "state": "off"}, []string{"off", "running, stopped or paused"}},
		{"restore_checkpoint", map[string]any{"name": "x"}, []string{`"label"`, "missing"}},
		{"destroy_sandbox", map[string]any{"names": "x"}, []string{`"names"`, "list of strings"}},
	} {
		_, err := answer(t, c, bad.tool, bad.arguments)
		var failed *CallError
		if !errors.As(err, &failed) {
			t.Errorf("%s %v: %v, want a failed call", bad.tool, bad.arguments, err)
			continue
		}
		for _, part := range bad.contains {
			if !strings.Contains(failed.Text, part) {
				t.Errorf("%s %v: %q has no %q", bad.tool, bad.arguments, failed.Text, part)
			}
		}
	}
	if list, err := answer(t, c, "list_sandboxes", nil); err != nil || len(list["sandboxes"].([]any)) != 0 {
		t.Errorf("left is %v, %v", list, err)
	}
	// What no tool has is ignored, and named.
	list, err := answer(t, c, "list_sandboxes", map[string]any{"owner": "root"})
	if diff := cmp.Diff([]any{"owner"}, list["ignored"]); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}
}

func TestFilesOverMCP(t *testing.T) {
	c := serve(t)
	must := func(tool string, arguments map[string]any) map[string]any {
		t.Helper()
		arguments["name"] = "box"
		out, err := answer(t, c, tool, arguments)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	must("create_sandbox", map[string]any{})
	if got := must("write_file", map[string]any{"path": "a/b", "content": "one\ntwo\n"}); got["path"] != "/home/pixel/a/b" || got["created"] != true || got["size"] != 8.0 {
		t.Errorf("written %v", got)
	}
	if got := must("edit_file", map[string]any{"path": "a/b", "old_text": "two", "new_text": "2"}); got["replaced"] != 1.0 {
		t.Errorf("edited %v", got)
	}
	if got := must("read_file", map[string]any{"path": "a/b", "offset": 2}); got["content"] != "2\n" || got["lines"] != 2.0 || got["first_line"] != 2.0 {
		t.Errorf("read %v", got)
	}
	must("write_file", map[string]any{"path": "c", "content": "AP8=", "encoding": "base64", "mode": "700"})
	if got := must("read_file", map[string]any{"path": "c", "encoding": "base64"}); got["content"] != "AP8=" {
		t.Errorf("bytes %v", got)
	}
	if got := must("list_files", map[string]any{"depth": 2}); len(got["entries"].([]any)) != 3 {
		t.Errorf("listed %v", got)
	}
	for _, bad := range []struct {
		tool      string
		arguments map[string]any
		contains  string
	}{
		{"write_file", map[string]any{"path": "x", "content": "???", "encoding": "base64"}, `"content"`},
		{"write_file", map[string]any{"path": "x", "content": "", "mode": "999"}, `"mode"`},
		{"copy_files", map[string]any{"direction": "up", "host_path": "x", "path": "y"}, `"direction"`},
		{"copy_files", map[string]any{"direction": "in", "host_path": "x", "path": "y"}, "files.host_folders"},
		{"read_file", map[string]any{"path": "absent"}, "list_files"},
	} {
		bad.arguments["name"] = "box"
		if _, err := answer(t, c, bad.tool, bad.arguments); err == nil || !strings.Contains(err.Error(), bad.contains) {
			t.Errorf("%s %v: %v, want %q", bad.tool, bad.arguments, err, bad.contains)
		}
	}
}
