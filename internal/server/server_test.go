package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"github.com/mark3labs/mcp-go/mcp"
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

func TestACallThatWaitsDoesNotHoldUpOthers(t *testing.T) {
	c := serve(t)
	if _, err := answer(t, c, "create_sandbox", map[string]any{"name": "box"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Call(ctx, "exec", map[string]any{"name": "box", "command": "echo begun >begun; sleep 600"}, nil)
	}()
	for {
		if out, err := answer(t, c, "exec", map[string]any{"name": "box", "command": "cat begun"}); err != nil {
			t.Fatal(err)
		} else if out["exit_code"] == 0.0 {
			break
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled call: %v", err)
	}
	out, err := answer(t, c, "exec", map[string]any{"name": "box", "command": "echo x; sleep 600", "timeout": 0.2})
	var failed *CallError
	if !errors.As(err, &failed) || out["timed_out"] != true || out["stdout"] != "x\n" {
		t.Errorf("the timeout gives %v, %v", out, err)
	}
}

func TestACommandInTheBackground(t *testing.T) {
	c := serve(t)
	if _, err := answer(t, c, "create_sandbox", map[string]any{"name": "box"}); err != nil {
		t.Fatal(err)
	}
	out, err := answer(t, c, "exec", map[string]any{"name": "box", "command": "echo begun; cat; sleep 0.2; echo end; exit 3", "stdin": "given\n", "background": true})
	id, _ := out["operation"].(string)
	if err != nil || !strings.HasPrefix(id, "box.") || out["exit_code"] != nil {
		t.Fatalf("%v, %v", out, err)
	}
	first := func(arguments map[string]any) map[string]any {
		t.Helper()
		out, err := answer(t, c, "wait", arguments)
		if err != nil {
			t.Fatal(err)
		}
		return out["operations"].([]any)[0].(map[string]any)
	}
	if got := first(map[string]any{"ids": []string{id}, "timeout": 0}); got["state"] != "running" || got["exec"].(map[string]any)["exit_code"] != nil {
		t.Errorf("under way it is %v", got)
	}
	got := first(map[string]any{"ids": []string{id}})
	if ran := got["exec"].(map[string]any); got["state"] != "ended" || ran["exit_code"] != 3.0 || ran["stdout"] != "begun\ngiven\nend\n" || got["cursor"] != "16:0" {
		t.Errorf("ended it is %v", got)
	}
	if got := first(map[string]any{"ids": []string{id}, "cursor": "6:0"}); got["exec"].(map[string]any)["stdout"] != "given\nend\n" {
		t.Errorf("from a cursor it is %v", got)
	}
	if _, err := answer(t, c, "wait", map[string]any{"ids": []string{id}, "cursor": "x"}); err == nil || !strings.Contains(err.Error(), "cursor") {
		t.Errorf("a bad cursor: %v", err)
	}
	// Longer than a call may last: run behind, but waited for.
	if out, err := answer(t, c, "exec", map[string]any{"name": "box", "command": "echo done", "timeout": 600}); err != nil || out["stdout"] != "done\n" || out["exit_code"] != 0.0 {
		t.Errorf("%v, %v", out, err)
	}
	out, err = answer(t, c, "exec", map[string]any{"name": "box", "command": "sleep 600", "background": true})
	if err != nil {
		t.Fatal(err)
	}
	if got := first(map[string]any{"ids": []string{out["operation"].(string)}, "cancel": true}); got["state"] != "ended" || got["cancelled"] != true {
		t.Errorf("cancelled it is %v", got)
	}
	// It is given more to read, and signals.
	out, err = answer(t, c, "exec", map[string]any{"name": "box", "command": "while read -r line; do echo got $line; done; echo end; sleep 600", "stdin": "one\n", "background": true, "keep_stdin": true})
	if err != nil {
		t.Fatal(err)
	}
	id = out["operation"].(string)
	first(map[string]any{"ids": []string{id}, "timeout": 0, "stdin": "two\n"})
	first(map[string]any{"ids": []string{id}, "timeout": 0.5, "stdin": "three\n", "signal": "EOF"})
	if got := first(map[string]any{"ids": []string{id}, "signal": "INT"}); got["state"] != "ended" || got["exec"].(map[string]any)["exit_code"] != 130.0 || got["exec"].(map[string]any)["stdout"] != "got one\ngot two\ngot three\nend\n" {
		t.Errorf("fed it is %v", got)
	}
	for what, bad := range map[string]map[string]any{
		"one that has ended": {"ids": []string{id}, "stdin": "x"}, "an unknown signal": {"ids": []string{id}, "signal": "NOPE"}, "several": {"ids": []string{id, id}, "signal": "INT"}, "no command": {"ids": []string{"req-1"}, "stdin": "x"},
	} {
		if _, err := answer(t, c, "wait", bad); err == nil {
			t.Errorf("%s is fed", what)
		}
	}
	if _, err := answer(t, c, "exec", map[string]any{"name": "box", "command": "cat", "keep_stdin": true}); err == nil {
		t.Error("a call waits for what nobody can write")
	}
	// Long output: both ends first, and all of it by cursor.
	out, err = answer(t, c, "exec", map[string]any{"name": "box", "command": "x=0123456789; for i in 1 2 3 4; do x=$x$x$x$x$x$x$x; done; echo $x", "background": true})
	if err != nil {
		t.Fatal(err)
	}
	id = out["operation"].(string)
	got = first(map[string]any{"ids": []string{id}})
	if ran := got["exec"].(map[string]any); ran["truncated"] != true || !strings.Contains(ran["stdout"].(string), `4011 bytes cut here; wait with the cursor "10000:0"`) {
		t.Errorf("long output: %.100v", got)
	}
	if got := first(map[string]any{"ids": []string{id}, "cursor": "10000:0"}); !strings.HasPrefix(got["exec"].(map[string]any)["stdout"].(string), "0123456789") {
		t.Errorf("read on where it was cut: %.100v", got)
	}
	all, cursor := "", "0:0"
	for range 10 {
		got = first(map[string]any{"ids": []string{id}, "cursor": cursor})
		all += got["exec"].(map[string]any)["stdout"].(string)
		if cursor, _ = got["cursor"].(string); got["more"] != true {
			break
		}
	}
	if want := strings.Repeat("0123456789", 2401) + "\n"; all != want {
		t.Errorf("read by cursor it is %d bytes, want %d", len(all), len(want))
	}
}

func TestOutputIsToldAsItComes(t *testing.T) {
	c := serve(t)
	if _, err := answer(t, c, "create_sandbox", map[string]any{"name": "box"}); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 100)
	c.mcp.OnNotification(func(n mcp.JSONRPCNotification) {
		if n.Method == "notifications/progress" && n.Params.AdditionalFields["progressToken"] == "mine" {
			told <- n.Params.AdditionalFields["message"].(string)
		}
	})
	var request mcp.CallToolRequest
	request.Params.Name = "exec"
	request.Params.Arguments = map[string]any{"name": "box", "command": "echo first; sleep 1; echo second; sleep 1; echo last"}
	request.Params.Meta = &mcp.Meta{ProgressToken: "mine"}
	ended := make(chan error, 1)
	go func() {
		_, err := c.mcp.CallTool(t.Context(), request)
		ended <- err
	}()
	for _, want := range []string{"first\n", "second\n"} {
		select {
		case got := <-told:
			if got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		case err := <-ended:
			t.Fatalf("the call ended (%v) before it told %q", err, want)
		case <-time.After(10 * time.Second):
			t.Fatalf("%q is not told", want)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Of a call whose parts are known, progress says how many are done, of how many.
func TestProgressHasItsTotal(t *testing.T) {
	c := serve(t)
	if _, err := answer(t, c, "create_sandbox", map[string]any{"name": "box"}); err != nil {
		t.Fatal(err)
	}
	if _, err := answer(t, c, "create_checkpoint", map[string]any{"name": "box", "label": "ready"}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var told []string
	c.mcp.OnNotification(func(n mcp.JSONRPCNotification) {
		if n.Method == "notifications/progress" {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(n.Params.AdditionalFields["progress"], " of ", n.Params.AdditionalFields["total"]))
		}
	})
	var request mcp.CallToolRequest
	request.Params.Name, request.Params.Arguments, request.Params.Meta = "clone_sandbox", map[string]any{"source": "box:ready", "count": 3}, &mcp.Meta{ProgressToken: "mine"}
	if _, err := c.mcp.CallTool(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(told, ", "); got != "0.5 of 3, 1 of 3, 2 of 3, 3 of 3" {
		t.Errorf("told %s", got)
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

// The budget is that of what is sent, for clients put most of it into every prompt.
func TestToolsFitTheirBudget(t *testing.T) {
	fromClient, toServer := io.Pipe()
	fromServer, toClient := io.Pipe()
	go func() {
		_ = New("test", tools.Session{Manager: manager.New(sandboxtest.NewMemory(), manager.Defaults{})}, zerolog.Nop()).Serve(t.Context(), fromClient, toClient)
	}()
	defer toServer.Close()
	lines := bufio.NewReader(fromServer)
	say := func(line string) {
		t.Helper()
		if _, err := io.WriteString(toServer, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	hear := func() []byte {
		t.Helper()
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	say(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	hear()
	say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	say(`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
	fits(t, hear())
}

// fits checks that an answer to tools/list takes no more than it may.
func fits(t *testing.T, sent []byte) {
	t.Helper()
	type shown struct { // to a model
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Input       json.RawMessage `json:"inputSchema"`
	}
	var list struct {
		Result struct {
			Tools []struct {
				shown
				Output *jsonschema.Schema `json:"outputSchema"`
			} `json:"tools"`
		} `json:"result"`
	}
	if err := json.Unmarshal(sent, &list); err != nil {
		t.Fatal(err)
	}
	model := 0
	for _, tool := range list.Result.Tools {
		b, err := json.Marshal(tool.shown)
		if err != nil {
			t.Fatal(err)
		}
		model += len(b)
		if len(tool.Output.Properties) == 0 {
			t.Errorf("the output of %s has nothing", tool.Name)
		}
		hollow(t, tool.Name, tool.Output)
	}
	count := len(list.Result.Tools)
	t.Logf("%d tools in %d bytes, of which a model sees %d", count, len(sent), model)
	if count == 0 || count > 24 || model > 15_000 || len(sent) > 32_000 {
		t.Errorf("%d tools in %d bytes, of which a model sees %d; the bounds are 24, 32 kB and 15 kB", count, len(sent), model)
	}
}

// hollow finds what a schema says nothing of.
func hollow(t *testing.T, at string, s *jsonschema.Schema) {
	t.Helper()
	switch {
	case s.Type == "object" && len(s.Properties) == 0 && s.AdditionalProperties == nil, s.Type == "array" && s.Items == nil, s.Type == "":
		t.Errorf("%s says nothing of what it is", at)
	}
	for name, property := range s.Properties {
		hollow(t, at+"."+name, property)
	}
	if s.Items != nil {
		hollow(t, at+"[]", s.Items)
	}
}
