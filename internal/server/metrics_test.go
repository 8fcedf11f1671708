package server

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"pixels/internal/web"
	"pixels/policy"
)

// The metrics count calls by tool, and refusals, for who has their token.
func TestMetrics(t *testing.T) {
	s := serveHTTP(t, func(c *HTTPConfig) { c.Metrics = metricsSecret })
	c := s.connect(t, mcpPath, s.token(t, "m", policy.Limits{}))
	if err := c.Call(t.Context(), "list_sandboxes", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), "list_checkpoints", map[string]any{"name": "nobody"}, nil); err == nil {
		t.Fatal("there is nobody")
	}
	s.send(t, "POST", mcpPath, "", hello)
	answer := s.send(t, "GET", metricsPath, metricsSecret, "")
	b, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("%s, %v", answer.Status, err)
	}
	for _, line := range []string{
		`pixels_calls_total{tool="list_sandboxes",result="done"} 1`, `pixels_calls_total{tool="list_checkpoints",result="failed"} 1`,
		`pixels_call_duration_seconds_count{tool="list_sandboxes"} 1`, `pixels_call_duration_seconds_bucket{tool="list_sandboxes",le="+Inf"} 1`,
		`pixels_mcp_sessions 1`, `pixels_http_refused_total{status="401"} 1`, "process_resident_memory_bytes ",
	} {
		if !strings.Contains(string(b), "\n"+line) && !strings.HasPrefix(string(b), line) {
			t.Errorf("there is no %s in:\n%s", line, b)
		}
	}
}

// Where the page is served at the same address, neither takes what the other's users have.
func TestThePageAtTheSameAddress(t *testing.T) {
	var page http.Handler
	s := serveHTTP(t, func(c *HTTPConfig) {
		c.Page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { page.ServeHTTP(w, r) })
	})
	host := strings.TrimPrefix(s.url, "http://")
	built, err := web.New(s.human, pageSecret, []string{host}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	page = built.Handler(nil)
	secret := s.token(t, "agent", policy.Limits{})
	login := func(token string) *http.Response {
		return s.send(t, "POST", "/login", "", url.Values{"token": {token}}.Encode(), "Content-Type", "application/x-www-form-urlencoded", "X-Pixels-Session", "new")
	}
	if got := login(secret); got.StatusCode != http.StatusForbidden {
		t.Errorf("the page takes a token of MCP: %s", got.Status)
	}
	in := login(pageSecret)
	session, err := io.ReadAll(in.Body)
	if err != nil || in.StatusCode != 200 {
		t.Fatalf("the page's own: %s, %v", in.Status, err)
	}
	if got := s.send(t, "GET", "/grants", "", "", "X-Pixels-Session", string(session)); got.StatusCode != 200 {
		t.Errorf("the page: %s", got.Status)
	}
	if got := s.send(t, "GET", "/grants", secret, ""); got.StatusCode == 200 && strings.Contains(got.Header.Get("Content-Type"), "html") {
		if b, _ := io.ReadAll(got.Body); strings.Contains(string(b), "Revoke") {
			t.Error("the page is shown by a token of MCP")
		}
	}
	for _, route := range s.routes {
		if route.who == anybody || route.who == browser {
			continue
		}
		for _, headers := range [][]string{{"Authorization", "Bearer " + pageSecret}, {"X-Pixels-Session", string(session)}, {"Authorization", "Bearer " + string(session)}, {"Cookie", "session=" + string(session)}} {
			if got := s.send(t, "POST", route.pattern, "", hello, headers...); got.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s takes %s: %s", route.pattern, headers[0], got.Status)
			}
		}
	}
}
