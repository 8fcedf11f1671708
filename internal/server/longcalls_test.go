package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
)

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
