package server

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/mark3labs/mcp-go/mcp"

	"pixels/policy"
)

// Each call's progress comes on its own stream, all of it before the answer, whatever other calls and streams the session has open; by the
// old transport before the answer, too.
func TestProgressComesWithItsCall(t *testing.T) {
	s := serveHTTP(t)
	secret := s.token(t, "one", policy.Limits{})
	id := s.session(t, secret)
	header := []string{"Mcp-Session-Id", id, "Mcp-Protocol-Version", "2025-11-25"}
	s.send(t, "POST", mcpPath, secret, toolCall(1, "create_sandbox", `{"name":"box"}`, ""), header...)
	listening := s.send(t, "GET", mcpPath, secret, "", header...)
	heard := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(listening.Body)
		heard <- string(b)
	}()
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			command := fmt.Sprintf(`{"name":"box","command":"echo first-%d-; sleep 0.%d"}`, i, 5+i%5)
			b, err := io.ReadAll(s.send(t, "POST", mcpPath, secret, toolCall(10+i, "exec", command, fmt.Sprintf(`"progressToken":%d`, i)), header...).Body)
			text := string(b)
			progress, answer := strings.LastIndex(text, "notifications/progress"), strings.Index(text, `"result"`)
			if err != nil || progress < 0 || progress > answer || !strings.Contains(text, fmt.Sprintf("first-%d-", i)) || strings.Count(text, "progressToken\":") != strings.Count(text, fmt.Sprintf("progressToken\":%d}", i))+strings.Count(text, fmt.Sprintf("progressToken\":%d,", i)) {
				t.Errorf("call %d: %s, %v", i, text, err)
			}
		})
	}
	all.Wait()
	s.send(t, "DELETE", mcpPath, secret, "", header...)
	if text := <-heard; strings.Contains(text, "progress") {
		t.Errorf("the session's stream heard %s", text)
	}
	if got := s.events.calls(id); len(got) != 0 {
		t.Errorf("what is left of it: %q", got)
	}
}

// The streams of many calls of one session are forgotten in time.
func TestOldStreamsAreForgotten(t *testing.T) {
	s := serveHTTP(t)
	secret := s.token(t, "one", policy.Limits{})
	id := s.session(t, secret)
	header := []string{"Mcp-Session-Id", id}
	s.send(t, "POST", mcpPath, secret, toolCall(1, "create_sandbox", `{"name":"box"}`, ""), header...)
	var all sync.WaitGroup
	for i := range maxCalls + 20 {
		all.Go(func() {
			_, _ = io.ReadAll(s.send(t, "POST", mcpPath, secret, toolCall(10+i, "exec", `{"name":"box","command":"echo x; sleep 0.4"}`, `"progressToken":1`), header...).Body)
		})
	}
	all.Wait()
	for i := range 25 { // each of which forgets one
		s.send(t, "POST", mcpPath, secret, toolCall(200+i, "list_sandboxes", `{}`, ""), header...)
	}
	if n := len(s.events.calls(id)); n > maxCalls || n == 0 {
		t.Errorf("%d are kept", n)
	}
}

// What a call tells last comes before its answer, by every transport.
func TestTheLastProgressIsNotLost(t *testing.T) {
	s := serveHTTP(t)
	counts := func(server *Server) {
		server.mcp.AddTool(mcp.NewTool("count"), func(ctx context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			tell := progress(ctx, request)
			for i := range 50 {
				tell(fmt.Sprintf("told-%d.", i), 0, 0)
			}
			return mcp.NewToolResultText("over"), nil
		})
	}
	counts(s.mcp)
	secret := s.token(t, "one", policy.Limits{})
	id := s.session(t, secret)
	check := func(way, text string) {
		t.Helper()
		before, _, answered := strings.Cut(text, `"text":"over"`)
		if last := 0; !answered || !strings.Contains(before, "told-49.") {
			t.Errorf("%s: %s", way, text)
		} else {
			for i := range 50 { // in order
				at := strings.Index(before, fmt.Sprintf("told-%d.", i))
				if at < last {
					t.Errorf("%s: %d is missing, or too early: %s", way, i, text)
					break
				}
				last = at
			}
		}
	}
	for range 20 {
		b, err := io.ReadAll(s.send(t, "POST", mcpPath, secret, toolCall(7, "count", `{}`, `"progressToken":1`), "Mcp-Session-Id", id).Body)
		if err != nil {
			t.Fatal(err)
		}
		check("streamable HTTP", string(b))
	}
	for i := range 100 {
		body := strings.Replace(modernCall(i, "tools/call", `"name":"count",`, `{}`), `"_meta":{`, `"_meta":{"progressToken":1,`, 1)
		b, err := io.ReadAll(s.send(t, "POST", mcpPath, secret, body, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "count").Body)
		if err != nil {
			t.Fatal(err)
		}
		check("streamable HTTP without sessions", string(b))
	}
	stream := s.send(t, "GET", ssePath, secret, "")
	next := sse(t, stream.Body)
	_, to, _ := next()
	s.send(t, "POST", to, secret, hello)
	for text := ""; !strings.Contains(text, `"id":1`); _, text, _ = next() {
	}
	for range 20 {
		s.send(t, "POST", to, secret, toolCall(7, "count", `{}`, `"progressToken":1`))
		all := ""
		for !strings.Contains(all, `"id":7`) {
			_, text, ok := next()
			if !ok {
				t.Fatalf("the stream ends after %s", all)
			}
			all += text + "\n"
		}
		check("SSE", all)
	}
	l := newLiner(t, s.config.Base.Manager, "one", "{}", counts)
	for i := range 20 {
		l.say(t, toolCall(1000+i, "count", `{}`, `"progressToken":1`))
		line, before := l.await(t, fmt.Sprintf(`"id":%d`, 1000+i))
		check("lines", strings.Join(before[len(before)-50:], "\n")+line)
	}
}
