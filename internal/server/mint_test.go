package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"pixels/internal/fault"
	"pixels/internal/streams"
	"pixels/policy"
	"pixels/sandbox/manager"
)

// The holder of a token mints narrower ones, which are used as far as their caps go, and ends them with what they made.
func TestMintedTokens(t *testing.T) {
	s := serveHTTP(t)
	three := int64(3)
	c := s.connect(t, mcpPath, s.token(t, "orch", policy.Limits{Sandboxes: &three}))
	mint := func(args map[string]any) (out struct{ Name, Token string }, err error) {
		err = c.Call(t.Context(), "mint_token", args, &out)
		return out, err
	}
	worker, err := mint(map[string]any{"name": "w1", "sandboxes": 1, "egress": []string{"none"}, "tools": []string{"create_sandbox", "exec", "list_sandboxes", "mint_token"}, "ttl": "1h"})
	if err != nil || worker.Name != "orch/w1" {
		t.Fatalf("%+v, %v", worker, err)
	}
	for what, args := range map[string]map[string]any{
		"orch has 3":       {"name": "w2", "sandboxes": 4},
		"last part alone":  {"name": "other/w2"},
		"is there already": {"name": "w1"},
		"no tool":          {"name": "w2", "tools": []string{"exce"}},
	} {
		if got, err := mint(args); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v: %+v, %v", args, got, err)
		}
	}
	w := s.connect(t, mcpPath, worker.Token)
	offered, err := w.Tools(t.Context())
	if err != nil || len(offered) != 4 {
		t.Errorf("%d tools, %v", len(offered), err)
	}
	if err := w.Call(t.Context(), "create_sandbox", map[string]any{"name": "box"}, nil); err != nil {
		t.Fatal(err)
	}
	for tool, args := range map[string]map[string]any{
		"create_sandbox":   {"name": "more"},
		"list_checkpoints": {"name": "box"},
		"destroy_sandbox":  {"names": []string{"box"}},
		"mint_token":       {"name": "x", "egress": []string{"agent"}},
	} {
		if err := w.Call(t.Context(), tool, args, nil); err == nil || !strings.Contains(err.Error(), "token orch/w1") && !strings.Contains(err.Error(), "token below it has no more") && !strings.Contains(err.Error(), "not for the token orch/w1") {
			t.Errorf("%s beyond its caps: %v", tool, err)
		}
	}
	stream := s.send(t, "GET", mcpPath, worker.Token, "", "Mcp-Session-Id", s.session(t, worker.Token))
	var ended struct{ Ended, Destroyed []string }
	if err := c.Call(t.Context(), "mint_token", map[string]any{"name": "w1", "end": "destroy"}, &ended); err != nil || len(ended.Ended) != 1 || len(ended.Destroyed) != 1 || ended.Destroyed[0] != "orch/w1/box" {
		t.Errorf("%+v, %v", ended, err)
	}
	_, _ = io.Copy(io.Discard, stream.Body) // which ends with it
	if got := s.send(t, "POST", mcpPath, worker.Token, hello); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("the ended token: %s", got.Status)
	}
	other := s.token(t, "other", policy.Limits{})
	list := s.send(t, "POST", mcpPath, other, `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`, "Mcp-Session-Id", s.session(t, other))
	sent, err := io.ReadAll(list.Body)
	if err != nil {
		t.Fatal(err)
	}
	fits(t, sent) // also to who has a token

}

// A command of the command line, which is a websocket, ends with its token, too.
func TestAnEndedTokenEndsItsCommands(t *testing.T) {
	s := serveHTTP(t)
	r := Remote{URL: s.url, Secret: s.token(t, "one", policy.Limits{})}
	c := streams.NewRemote(r.Base(), r.Header(), r.Client(), r.TLS, Refused, nil)
	if err := s.connect(t, mcpPath, r.Secret).Call(t.Context(), "create_sandbox", map[string]any{"name": "box"}, nil); err != nil {
		t.Fatal(err)
	}
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		_, err := c.Stream(context.Background(), manager.ExecRequest{Name: "box", Shell: "echo begun; sleep 60"}, manager.Streams{Out: writes(begun), Err: io.Discard})
		ended <- err
	}()
	<-begun
	if _, err := s.human.RevokeToken(t.Context(), "one", false); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended as if all were well")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	if _, err := c.Stream(context.Background(), manager.ExecRequest{Name: "box", Shell: "true"}, manager.Streams{Out: io.Discard, Err: io.Discard}); !errors.Is(err, fault.Denied) {
		t.Errorf("the next one: %v", err)
	}
	if _, err := r.Dial(t.Context()); !errors.Is(err, fault.Denied) {
		t.Errorf("a session: %v", err)
	}
}

// writes tells of what is written.
type writes chan struct{}

func (w writes) Write(b []byte) (int, error) {
	select {
	case w <- struct{}{}:
	default:
	}
	return len(b), nil
}

// What outlasts a request may use its token on, until that ends.
func TestATokenIsHeldUntilItEnds(t *testing.T) {
	s := serveHTTP(t)
	secret := s.token(t, "one", policy.Limits{})
	_, _, request, done, err := s.holders.begin(secret)
	if err != nil {
		t.Fatal(err)
	}
	over, release := s.holders.hold(secret)
	done()
	time.Sleep(20 * time.Millisecond)
	if over.Err() != nil || request.Err() != nil {
		t.Error("it is over with the request")
	}
	if _, err := s.human.RevokeToken(t.Context(), "one", false); err != nil {
		t.Fatal(err)
	}
	select {
	case <-over.Done():
	case <-time.After(10 * time.Second):
		t.Error("it goes on")
	}
	release()
	if late, _ := s.holders.hold(secret); late.Err() == nil {
		t.Error("an ended token is held")
	}
	if n := s.holders.count(); n != 0 {
		t.Errorf("%d are in use", n)
	}
}
