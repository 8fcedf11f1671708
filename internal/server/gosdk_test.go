package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	gosdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/rs/zerolog"

	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// withToken adds a token to what a client asks.
type withToken string

func (t withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(t))
	return http.DefaultTransport.RoundTrip(r)
}

// The official Go SDK, which we did not write, plays the main job by each transport, in each era that it speaks there.
func TestTheGoSDKPlaysTheJob(t *testing.T) {
	for name, version := range map[string]string{"stdio": "2025-11-25", "stdio, stateless": "2026-07-28", "http": "2025-11-25", "http, stateless": "2026-07-28", "sse": "2025-11-25"} {
		t.Run(name, func(t *testing.T) {
			s := serveHTTP(t)
			owner := "worker"
			var way gosdk.Transport
			switch kind, _, _ := strings.Cut(name, ","); kind {
			case "stdio":
				fromClient, toServer := io.Pipe()
				fromServer, toClient := io.Pipe()
				session := s.config.Base
				session.Caller = manager.Agent(owner)
				ended := make(chan error, 1)
				go func() {
					err := New("test", session, zerolog.Nop()).Serve(context.Background(), fromClient, toClient)
					_ = toClient.Close()
					ended <- err
				}()
				t.Cleanup(func() {
					if err := <-ended; err != nil {
						t.Error(err)
					}
				})
				way = &gosdk.IOTransport{Reader: fromServer, Writer: toServer}
			case "http":
				way = &gosdk.StreamableClientTransport{Endpoint: s.url + mcpPath, HTTPClient: &http.Client{Transport: withToken(s.token(t, owner, policy.Limits{}))}}
			case "sse":
				way = &gosdk.SSEClientTransport{Endpoint: s.url + ssePath, HTTPClient: &http.Client{Transport: withToken(s.token(t, owner, policy.Limits{}))}}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c, err := gosdk.NewClient(&gosdk.Implementation{Name: "test", Version: "1"}, nil).Connect(ctx, way, &gosdk.ClientSessionOptions{ProtocolVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := c.InitializeResult().ProtocolVersion; got != version {
				t.Errorf("it speaks %s", got)
			}
			call := func(tool string, arguments map[string]any, out any) {
				t.Helper()
				r, err := c.CallTool(ctx, &gosdk.CallToolParams{Name: tool, Arguments: arguments})
				if err != nil || r.IsError {
					t.Fatalf("%s: %+v, %v", tool, r, err)
				}
				b, err := json.Marshal(r.StructuredContent)
				if err == nil && out != nil {
					err = json.Unmarshal(b, out)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			offered, err := c.ListTools(ctx, nil)
			if err != nil || len(offered.Tools) < 22 || offered.Tools[0].Name != "create_sandbox" {
				t.Errorf("%v", err)
			}
			call("create_sandbox", map[string]any{"name": "base", "egress": "allowlist"}, nil)
			call("create_checkpoint", map[string]any{"name": "base", "label": "ready"}, nil)
			var clones struct{ Made int }
			if call("clone_sandbox", map[string]any{"source": "base:ready", "count": 3, "command": "true"}, &clones); clones.Made != 3 {
				t.Errorf("%+v", clones)
			}
			var asked struct{ Requests []struct{ ID string } }
			if call("allow_domain", map[string]any{"name": "base-1", "domains": []string{"example.com"}, "reason": "to fetch"}, &asked); len(asked.Requests) != 1 {
				t.Fatalf("%+v", asked)
			}
			open, err := s.human.Requests(owner, 10, ledger.RequestOpen)
			if err == nil && len(open) == 1 {
				_, err = s.human.Approve(ctx, manager.Approval{ID: open[0].ID, Seen: s.human.Digest(open[0]), By: "test"})
			}
			if err != nil || len(open) != 1 {
				t.Fatalf("%+v, %v", open, err)
			}
			var waited struct{ Operations []struct{ State string } }
			if call("wait", map[string]any{"ids": []string{asked.Requests[0].ID}}, &waited); len(waited.Operations) != 1 || waited.Operations[0].State != "ended" {
				t.Errorf("%+v", waited)
			}
			var gone struct{ Destroyed []string }
			if call("destroy_sandbox", map[string]any{"names": []string{"base", "base-1", "base-2", "base-3"}}, &gone); len(gone.Destroyed) != 4 {
				t.Errorf("%+v", gone)
			}
		})
	}
}
