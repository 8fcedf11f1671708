package server

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"

	"pixels/policy"
	"pixels/policy/ledger"
)

// Over HTTP a caller is an owner, and never a human: no form is put to who has the token, and what they would answer decides nothing.
func TestNobodyIsAskedOverHTTP(t *testing.T) {
	s := serveHTTP(t)
	secret := s.token(t, "one", policy.Limits{})
	var asked atomic.Int32
	human := answers(func(context.Context, mcp.ElicitationParams) (*mcp.ElicitationResult, error) {
		asked.Add(1)
		r := &mcp.ElicitationResult{}
		r.Action, r.Content = mcp.ElicitationResponseActionAccept, map[string]any{"choice": "allow for 1 hour"}
		return r, nil
	})
	way, err := transport.NewStreamableHTTP(s.url+mcpPath, transport.WithHTTPHeaders(map[string]string{"Authorization": "Bearer " + secret}), transport.WithContinuousListening())
	if err != nil {
		t.Fatal(err)
	}
	c := client.NewClient(way, client.WithElicitationHandler(human))
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var hello mcp.InitializeRequest
	hello.Params.ProtocolVersion, hello.Params.ClientInfo = "2025-11-25", mcp.Implementation{Name: "test", Version: "1"}
	hello.Params.Capabilities.Elicitation = &mcp.ElicitationCapability{Form: &struct{}{}}
	if _, err := c.Initialize(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	one := &Client{mcp: c}
	if err := one.Call(t.Context(), "create_sandbox", map[string]any{"name": "box", "egress": "allowlist"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := one.Call(t.Context(), "allow_domain", map[string]any{"name": "box", "domains": []string{"a.example.com"}, "reason": "to try", "wait": 1}, nil); err != nil {
		t.Fatal(err)
	}
	open, err := s.human.Requests("one", 10, ledger.RequestOpen)
	if err != nil || len(open) != 1 || asked.Load() != 0 {
		t.Errorf("%+v, %v, asked %d times", open, err, asked.Load())
	}
}
