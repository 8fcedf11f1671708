package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
	"github.com/rs/zerolog"

	"pixels/egress"
	"pixels/internal/oauth"
	"pixels/internal/streams"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
	"pixels/tools"
)

// served is an HTTP server over a backend in memory.
type served struct {
	*HTTP
	url   string
	human *manager.Human
}

func serveHTTP(t *testing.T, edit ...func(*HTTPConfig)) *served {
	t.Helper()
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	m, door := manager.NewWithDoor(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.None, Store: store})
	operations := tools.NewOperations(context.Background())
	t.Cleanup(operations.Wait)
	base := tools.Session{Manager: m, Operations: operations, Caller: manager.Agent("")}
	config := HTTPConfig{
		Version: "test", Base: base, Tokens: m, Log: zerolog.Nop(),
		Streams: streams.New(m, func(r *http.Request) manager.Caller { return Caller(r.Context(), base.Caller) }, zerolog.Nop()),
	}
	if config.OAuth, err = oauth.New(store, oauth.NewDocuments(), func(issuer string) string { return issuer }, Spoken...); err != nil {
		t.Fatal(err)
	}
	for _, edit := range edit {
		edit(&config)
	}
	s := &served{HTTP: NewHTTP(config), human: door.Human("test")}
	listener := httptest.NewServer(s.HTTP)
	s.url = listener.URL
	t.Cleanup(func() {
		listener.CloseClientConnections()
		s.Close()
		listener.Close()
	})
	return s
}

// token makes a token.
func (s *served) token(t testing.TB, name string, limits policy.Limits) (secret string) {
	t.Helper()
	secret, err := s.human.CreateToken(context.Background(), ledger.Token{Name: name, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// connect opens a session by one of the transports.
func (s *served) connect(t testing.TB, path, secret string) *Client {
	t.Helper()
	headers := map[string]string{"Authorization": "Bearer " + secret}
	var c *client.Client
	var err error
	if path == ssePath {
		c, err = client.NewSSEMCPClient(s.url+path, transport.WithHeaders(headers))
	} else {
		c, err = client.NewStreamableHttpClient(s.url+path, transport.WithHTTPHeaders(headers))
	}
	if err == nil {
		err = c.Start(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	var hello mcp.InitializeRequest
	hello.Params.ProtocolVersion, hello.Params.ClientInfo = "2025-11-25", mcp.Implementation{Name: "test", Version: "1"}
	if _, err := c.Initialize(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	return &Client{mcp: c}
}

// send makes a request, and returns its answer with its body open.
func (s *served) send(t testing.TB, method, path, secret, body string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answer
}

const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`

// session begins one by hand, and returns its ID.
func (s *served) session(t testing.TB, secret string) string {
	t.Helper()
	answer := s.send(t, "POST", mcpPath, secret, hello)
	id := answer.Header.Get("Mcp-Session-Id")
	if answer.StatusCode != http.StatusOK || id == "" {
		t.Fatalf("no session: %s", answer.Status)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	return id
}

func TestTheJobOverHTTP(t *testing.T) {
	s := serveHTTP(t)
	for _, path := range []string{mcpPath, ssePath} {
		t.Run(path[1:], func(t *testing.T) {
			name := "by-" + path[1:]
			c := s.connect(t, path, s.token(t, name, policy.Limits{}))
			for _, call := range []struct {
				tool string
				args map[string]any
			}{
				{"create_sandbox", map[string]any{"name": "base"}}, {"create_checkpoint", map[string]any{"name": "base", "label": "ready"}},
				{"clone_sandbox", map[string]any{"source": "base:ready", "count": 3}}, {"exec", map[string]any{"name": "base-1", "command": "true"}},
			} {
				if err := c.Call(t.Context(), call.tool, call.args, nil); err != nil {
					t.Fatal(err)
				}
			}
			var list struct {
				Sandboxes []struct{ Name, Owner string }
			}
			if err := c.Call(t.Context(), "list_sandboxes", nil, &list); err != nil || len(list.Sandboxes) != 4 || list.Sandboxes[0].Owner != name {
				t.Errorf("%+v, %v", list, err)
			}
			offered, err := c.Tools(t.Context())
			if err != nil || len(offered) != len(policy.Verbs) || offered[0].Name != "create_sandbox" || offered[len(offered)-1].Name != "mint_token" {
				t.Errorf("%d tools are not offered in the order of their use: %v", len(offered), err)
			}
		})
	}
}

// The same in the stateless era: each request stands for itself.
func TestStatelessCalls(t *testing.T) {
	s := serveHTTP(t)
	secret := s.token(t, "modern", policy.Limits{})
	call := func(id int, method, name, params string) (map[string]any, int) {
		body := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":%q,"params":{%s"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`, id, method, params)
		answer := s.send(t, "POST", mcpPath, secret, body, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", method, "Mcp-Name", name)
		var out map[string]any
		_ = json.NewDecoder(answer.Body).Decode(&out)
		if answer.Header.Get("Mcp-Session-Id") != "" {
			t.Error("a session was begun")
		}
		result, _ := out["result"].(map[string]any)
		if result == nil {
			t.Errorf("%s: %s: %v", method, answer.Status, out)
		}
		return result, answer.StatusCode
	}
	if got, _ := call(1, "server/discover", "", ""); !strings.Contains(fmt.Sprint(got["supportedVersions"]), "2026-07-28") || !strings.Contains(fmt.Sprint(got["supportedVersions"]), "2025-11-25") {
		t.Errorf("%v", got)
	}
	if got, _ := call(2, "tools/call", "create_sandbox", `"name":"create_sandbox","arguments":{"name":"box"},`); got["isError"] == true {
		t.Errorf("%v", got)
	}
	if got, _ := call(3, "tools/list", "", ""); len(got["tools"].([]any)) != len(policy.Verbs) {
		t.Errorf("%v", got)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if got := s.send(t, method, mcpPath, secret, "", "Mcp-Protocol-Version", "2026-07-28"); got.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %s", method, got.Status)
		}
	}
}

// Secrets of what else is served.
const pageSecret, metricsSecret = "the-secret-of-the-page-itself", "the-secret-of-the-metrics"

// Every route refuses what another site's page sends, what comes to a name that is not ours, and who has no token.
func TestEveryRouteIsGuarded(t *testing.T) {
	s := serveHTTP(t, func(c *HTTPConfig) { c.Names = []string{"pixels.example"}; c.Metrics = metricsSecret })
	good, revoked := s.token(t, "good", policy.Limits{}), s.token(t, "bad", policy.Limits{})
	if _, err := s.human.RevokeToken(t.Context(), "bad", false); err != nil {
		t.Fatal(err)
	}
	if len(s.routes) < 5 {
		t.Fatalf("only %d routes", len(s.routes))
	}
	host := strings.TrimPrefix(s.url, "http://")
	for _, route := range s.routes {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} {
			refused := func(what string, want int, secret string, headers ...string) {
				t.Helper()
				answer := s.send(t, method, route.pattern, secret, "", headers...)
				if answer.StatusCode != want {
					t.Errorf("%s %s: %s is answered %s", method, route.pattern, what, answer.Status)
				}
				for name := range answer.Header {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("%s %s: %s", method, route.pattern, name)
					}
				}
			}
			refused("another site", 403, good, "Origin", "http://evil.example")
			refused("another port", 403, good, "Origin", "http://127.0.0.1:1")
			refused("no site that it tells", 403, good, "Origin", "null")
			refused("another scheme", 403, good, "Origin", "https://"+host)
			refused("another site's fetch", 403, good, "Sec-Fetch-Site", "cross-site")
			refused("another site's form", 403, good, "Sec-Fetch-Site", "cross-site", "Origin", "http://evil.example", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
			refused("another site's frame", 403, good, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe")
			if method != "GET" || route.who != browser {
				refused("another site's link", 403, good, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
			}
			refused("a sister site's fetch", 403, good, "Sec-Fetch-Site", "same-site")
			refused("another name", 403, good, "Host", "evil.example")
			refused("another name with our port", 403, good, "Host", "evil.example:"+host[strings.LastIndex(host, ":")+1:])
			refused("another address", 403, good, "Host", "198.51.100.1")
			if route.who == anybody || route.who == browser {
				continue
			}
			refused("the page's token", 401, pageSecret)
			if route.who == holder {
				refused("the metrics' token", 401, metricsSecret)
			} else {
				refused("a token that is good elsewhere", 401, good)
			}
			refused("nobody", 401, "")
			refused("a revoked token", 401, revoked)
			refused("a cookie", 401, "", "Cookie", "token="+good)
			refused("another scheme of authorization", 401, "", "Authorization", "Basic "+good)
			refused("a token in the address", 401, "", "X-Api-Key", good)
		}
	}
	for _, name := range []string{"pixels.example", "PIXELS.example:443", "localhost", "127.0.0.1:1"} {
		if answer := s.send(t, "GET", healthPath, "", "", "Host", name); answer.StatusCode != 200 {
			t.Errorf("%s: %s", name, answer.Status)
		}
	}
	if answer := s.send(t, "POST", mcpPath, good, hello, "Origin", s.url); answer.StatusCode != 200 {
		t.Errorf("our own page: %s", answer.Status)
	}
	if answer := s.send(t, "POST", mcpPath, good, strings.Repeat(" ", maxBody+1)); answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a long body: %s", answer.Status)
	}
}

// A session is of the token by which it began, and is nobody's once it has ended.
func TestSessionsAreTheirHolders(t *testing.T) {
	s := serveHTTP(t, func(c *HTTPConfig) { c.sessionIdle = time.Second })
	mine, other := s.token(t, "mine", policy.Limits{}), s.token(t, "other", policy.Limits{})
	const ping = `{"jsonrpc":"2.0","id":2,"method":"ping"}`
	id := s.session(t, mine)
	status := func(method, secret, id string) int {
		t.Helper()
		body := ""
		if method == "POST" {
			body = ping
		}
		answer := s.send(t, method, mcpPath, secret, body, "Mcp-Session-Id", id)
		if method != "GET" || answer.StatusCode != 200 {
			_, _ = io.Copy(io.Discard, answer.Body)
		}
		return answer.StatusCode
	}
	if got := status("POST", mine, id); got != 200 {
		t.Fatalf("its own: %d", got)
	}
	for _, method := range []string{"POST", "GET", "DELETE"} {
		if got := status(method, other, id); got != 404 {
			t.Errorf("%s by another token: %d", method, got)
		}
		if got := status(method, mine, "nonsense"); got != 404 {
			t.Errorf("%s of none: %d", method, got)
		}
	}
	if got := s.send(t, "GET", mcpPath, mine, "").StatusCode; got != 400 {
		t.Errorf("a stream of no session: %d", got)
	}
	if got := s.send(t, "POST", mcpPath, mine, ping).StatusCode; got != 400 {
		t.Errorf("a request in no session: %d", got)
	}
	if got := status("DELETE", mine, id); got != 200 {
		t.Errorf("its end: %d", got)
	}
	if got := status("POST", mine, id); got != 404 {
		t.Errorf("after its end: %d", got)
	}
	idle := s.session(t, mine)
	for deadline := time.Now().Add(20 * time.Second); s.sessions.find(keyOf(mine), idle) != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a session that nobody uses goes on")
		}
	}
	if got := status("POST", mine, idle); got != 404 {
		t.Errorf("after it was not used for long: %d", got)
	}
}

// What the holder of a token has open ends with the token, at once.
func TestAnEndedTokenEndsItsStreams(t *testing.T) {
	s := serveHTTP(t)
	parent := s.token(t, "top", policy.Limits{})
	child := s.token(t, "top/child", policy.Limits{})
	open := map[string]*http.Response{
		"stream":       s.send(t, "GET", mcpPath, child, "", "Mcp-Session-Id", s.session(t, child)),
		"old stream":   s.send(t, "GET", ssePath, child, ""),
		"its parent's": s.send(t, "GET", mcpPath, parent, "", "Mcp-Session-Id", s.session(t, parent)),
	}
	ended := make(chan string, len(open))
	for name, answer := range open {
		if answer.StatusCode != 200 {
			t.Fatalf("%s: %s", name, answer.Status)
		}
		go func() {
			_, _ = io.Copy(io.Discard, bufio.NewReader(answer.Body))
			ended <- name
		}()
	}
	time.Sleep(50 * time.Millisecond)
	if _, err := s.human.RevokeToken(t.Context(), "top", false); err != nil {
		t.Fatal(err)
	}
	var names []string
	for range open {
		select {
		case name := <-ended:
			names = append(names, name)
		case <-time.After(10 * time.Second):
			t.Fatalf("only %q ended", names)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"its parent's", "old stream", "stream"}) {
		t.Error(names)
	}
}
