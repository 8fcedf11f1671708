package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/policy"
)

// sse reads the events of a stream: their IDs and data.
func sse(t testing.TB, r io.Reader) (next func() (id, data string, ok bool)) {
	t.Helper()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	return func() (id, data string, ok bool) {
		for lines.Scan() {
			switch line := lines.Text(); {
			case strings.HasPrefix(line, "id: "):
				id = line[4:]
			case strings.HasPrefix(line, "data:"):
				data = strings.TrimSpace(line[5:])
			case line == "" && data != "":
				return id, data, true
			}
		}
		return "", "", false
	}
}

func toolCall(id int, tool, arguments, meta string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%q,"arguments":%s,"_meta":{%s}}}`, id, tool, arguments, meta)
}

// Who loses the connection of a call comes back to its stream by the last event, and hears what was missed, the answer among it.
func TestABrokenStreamIsResumed(t *testing.T) {
	s := serveHTTP(t)
	secret := s.token(t, "one", policy.Limits{})
	id := s.session(t, secret)
	header := []string{"Mcp-Session-Id", id, "Mcp-Protocol-Version", "2025-11-25"}
	if got := s.send(t, "POST", mcpPath, secret, toolCall(2, "create_sandbox", `{"name":"box"}`, ""), header...); got.StatusCode != 200 {
		t.Fatal(got.Status)
	}
	broken := s.send(t, "POST", mcpPath, secret, toolCall(3, "exec", `{"name":"box","command":"echo begun; sleep 1.5; echo over"}`, `"progressToken":7`), header...)
	first, data, ok := sse(t, broken.Body)()
	if !ok || first == "" || !strings.Contains(data, "notifications/progress") {
		t.Fatalf("%q %q", first, data)
	}
	_ = broken.Body.Close()
	time.Sleep(100 * time.Millisecond)
	next := sse(t, s.send(t, "GET", mcpPath, secret, "", append(header, "Last-Event-ID", first)...).Body)
	for {
		_, data, ok := next()
		if !ok {
			t.Fatal("the stream ends without the answer")
		}
		if strings.Contains(data, `"id":3`) {
			if !strings.Contains(data, `begun\nover`) {
				t.Errorf("%s", data)
			}
			break
		}
	}
	if got := s.send(t, "GET", mcpPath, secret, "", append(header, "Last-Event-ID", "999")...); got.StatusCode != http.StatusBadRequest {
		t.Errorf("an event that was not: %s", got.Status)
	}
}

// A call that its client cancels ends within two seconds, by each way in which clients say so.
func TestACancelledCallEnds(t *testing.T) {
	s := serveHTTP(t)
	secret := s.token(t, "one", policy.Limits{})
	id := s.session(t, secret)
	header := []string{"Mcp-Session-Id", id}
	s.send(t, "POST", mcpPath, secret, toolCall(2, "create_sandbox", `{"name":"box"}`, ""), header...)
	const long = `{"name":"box","command":"echo begun; sleep 30"}`
	for name, cancel := range map[string]func(call *http.Response){
		"a notification": func(*http.Response) {
			s.send(t, "POST", mcpPath, secret, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}`, header...)
		},
		"the end of the session": func(*http.Response) { s.send(t, "DELETE", mcpPath, secret, "", header...) },
	} {
		call := s.send(t, "POST", mcpPath, secret, toolCall(3, "exec", long, `"progressToken":7`), header...)
		next := sse(t, call.Body)
		if _, _, ok := next(); !ok {
			t.Fatalf("%s: no progress", name)
		}
		begun := time.Now()
		cancel(call)
		for ok := true; ok; {
			_, _, ok = next()
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("%s: the call ended after %v", name, took)
		}
		if name == "the end of the session" {
			id = s.session(t, secret)
			header = []string{"Mcp-Session-Id", id}
		}
	}
	const modern = `"progressToken":1,"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}`
	stateless := []string{"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "exec"}
	other := s.send(t, "POST", mcpPath, secret, toolCall(1, "exec", long, modern), stateless...)
	one := s.send(t, "POST", mcpPath, secret, toolCall(1, "exec", `{"name":"box","command":"echo begun; sleep 1; echo over"}`, modern), stateless...)
	// Another client's cancellation of an equal ID, and the end of another one's connection, are not this one's.
	s.send(t, "POST", mcpPath, secret, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"_meta":{`+modern+`}}}`, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "notifications/cancelled")
	_ = other.Body.Close()
	b, err := io.ReadAll(one.Body)
	if err != nil || !strings.Contains(string(b), `begun\nover`) {
		t.Errorf("%s, %v", b, err)
	}
}

// Sessions that their clients abandon are reclaimed, with all that belongs to them.
func TestAbandonedSessionsAreReclaimed(t *testing.T) {
	s := serveHTTP(t, func(c *HTTPConfig) { c.sessionIdle = 2 * time.Second })
	secret := s.token(t, "one", policy.Limits{})
	s.session(t, secret)
	http.DefaultClient.CloseIdleConnections()
	before, _ := measured()
	for range 1000 {
		s.session(t, secret)
	}
	for deadline := time.Now().Add(60 * time.Second); s.sessions.count() > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions are left", s.sessions.count())
		}
	}
	http.DefaultClient.CloseIdleConnections()
	var after int
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if after, _ = measured(); after <= before+5 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines where there were %d", after, before)
		}
	}
}

func measured() (goroutines int, heap uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
}

// Many clients at once, whose requests have equal IDs, each get their own answers.
func TestManyClientsAtOnce(t *testing.T) {
	s := serveHTTP(t)
	const clients, calls = 200, 3
	secrets := make([]string, clients)
	for i := range secrets {
		secrets[i] = s.token(t, fmt.Sprintf("c%d", i), policy.Limits{})
	}
	var all sync.WaitGroup
	for i, secret := range secrets {
		all.Go(func() {
			id := s.session(t, secret)
			for n := range calls {
				name := fmt.Sprintf("box-%d-%d", i, n)
				answer := s.send(t, "POST", mcpPath, secret, toolCall(n, "create_sandbox", fmt.Sprintf(`{"name":%q}`, name), `"progressToken":1`), "Mcp-Session-Id", id)
				b, _ := io.ReadAll(answer.Body)
				text := string(b)
				if i := strings.LastIndex(text, "data: "); i >= 0 {
					text = text[i+6:]
				}
				var got struct {
					ID     int
					Result struct{ StructuredContent struct{ Name, Owner string } }
				}
				if err := json.Unmarshal([]byte(text), &got); err != nil || got.ID != n || got.Result.StructuredContent.Name != name || got.Result.StructuredContent.Owner != fmt.Sprintf("c%d", i) {
					t.Errorf("client %d, call %d: %s, %v", i, n, b, err)
				}
			}
		})
	}
	all.Wait()
}

// A stream on which nothing is sent shows that it is alive, and keeps its session: what lies between would cut it, and who is gone is
// noticed.
func TestIdleStreamsHaveAHeartbeat(t *testing.T) {
	s := serveHTTP(t, func(c *HTTPConfig) { c.heartbeat, c.sessionIdle = 100*time.Millisecond, 500*time.Millisecond })
	secret := s.token(t, "one", policy.Limits{})
	id := s.session(t, secret)
	for name, next := range map[string]func() (string, string, bool){
		"streamable HTTP": sse(t, s.send(t, "GET", mcpPath, secret, "", "Mcp-Session-Id", id).Body),
		"SSE":             sse(t, s.send(t, "GET", ssePath, secret, "").Body),
	} {
		beats := 0
		for beats < 8 { // longer than a session that nobody uses lasts
			_, data, ok := next()
			if !ok {
				t.Fatalf("%s: the stream ends after %d beats", name, beats)
			}
			if strings.Contains(data, `"method":"ping"`) {
				beats++
			}
		}
	}
	if s.sessions.find(keyOf(secret), id) == nil {
		t.Error("a session whose stream is open has ended")
	}
}
