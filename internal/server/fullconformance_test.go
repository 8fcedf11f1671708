package server

import (
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	mcpserver "github.com/mark3labs/mcp-go/server"

	"pixels/policy"
)

// conformanceWay is a server with fixtures, by an address that the suite may use: it knows no tokens, which are added on the way.
func conformanceWay(t *testing.T, edit ...func(*Server)) (address string) {
	t.Helper()
	s := serveHTTP(t, func(c *HTTPConfig) {
		c.sdk = []mcpserver.ServerOption{mcpserver.WithLogging(), mcpserver.WithResourceCapabilities(true, true)}
		c.asking = []string{"test_tool_with_logging", "test_sampling", "test_elicitation", "test_elicitation_sep1034_defaults", "test_elicitation_sep1330_enums"}
	})
	for _, edit := range edit {
		edit(s.mcp)
	}
	secret := s.token(t, "conformance", policy.Limits{})
	to, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	way := httptest.NewUnstartedServer(nil)
	own := "http://" + way.Listener.Addr().String() // which the suite knows
	way.Config.Handler = &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
		r.Out.Header.Set("Authorization", "Bearer "+secret)
		if r.In.Header.Get("Origin") == own {
			r.Out.Header.Set("Origin", s.url)
			r.Out.Host = to.Host
		}
	}}
	way.Start()
	t.Cleanup(way.Close)
	t.Cleanup(way.CloseClientConnections)
	return way.URL
}

// The whole suite, against a server that has beside Pixels' tools what the suite asks for, by the same adapter. What is expected to fail
// stands in testdata/conformance.yaml, with the reason of each; one that does not fail any more is a failure, too.
func TestFullConformance(t *testing.T) {
	t.Parallel()
	conformance(t)
	baseline, err := filepath.Abs("testdata/conformance.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"2025-11-25", "2026-07-28"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			way := conformanceWay(t, fixtures)
			out, err := conformance(t, "server", "--url", way+mcpPath, "--spec-version", version, "--suite", "all", "--expected-failures", baseline).CombinedOutput()
			if err != nil || strings.Count(string(out), "✓") < 30 {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	// Those of the tasks extension are in no suite.
	for _, scenario := range []string{"tasks-lifecycle", "tasks-capability-negotiation", "tasks-wire-fields", "tasks-request-state-removal", "tasks-request-headers", "tasks-mrtr-composition"} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			way := conformanceWay(t, fixtures)
			out, err := conformance(t, "server", "--url", way+mcpPath, "--spec-version", "2026-07-28", "--force", "--scenario", scenario).CombinedOutput()
			if err != nil || !strings.Contains(string(out), " 0 failed") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
