package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// The tree of tokens is shown with its use, to who signed in alone, and ended there with or without what was made by it.
func TestTokensOnThePage(t *testing.T) {
	s := newSite(t, "")
	two := int64(2)
	for name, l := range map[string]policy.Limits{"orch": {Sandboxes: &two}, "solo": {}} {
		if _, err := s.door.Human("test").CreateToken(context.Background(), ledger.Token{Name: name, Limits: l}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.door.Human("test").CreateToken(context.Background(), ledger.Token{Name: "orch/w1"}); err != nil {
		t.Fatal(err)
	}
	for _, owner := range []string{"orch/w1", "solo"} {
		if _, err := s.agent.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "box"}); err != nil {
			t.Fatal(err)
		}
	}
	stranger := s.visitor(t)
	if status, body := stranger.do(t, "GET", "/tokens", nil); strings.Contains(body, "orch") {
		t.Errorf("%d %s", status, body)
	}
	for _, path := range []string{"/tokens/revoke", "/tokens/destroy"} {
		if status, _ := stranger.do(t, "POST", path, url.Values{"name": {"orch"}}); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", path, status)
		}
	}
	v := s.visitor(t)
	v.signIn(t)
	_, body := v.do(t, "GET", "/tokens", nil)
	for _, shown := range []string{"<code>orch</code>", "<code>w1</code>", "2 sandboxes", "1 sandbox\n", "not yet", "as the policy says"} {
		if !strings.Contains(body, shown) && !strings.Contains(body, strings.TrimSuffix(shown, "\n")) {
			t.Errorf("%q is not shown in %s", shown, body)
		}
	}
	if status, body := v.do(t, "POST", "/tokens/revoke", url.Values{"name": {"orch"}}); status != http.StatusOK || !strings.Contains(body, "orch has ended") {
		t.Errorf("%d %s", status, body)
	}
	if _, err := s.store.Caps("orch/w1"); !errors.Is(err, ledger.ErrToken) {
		t.Errorf("it goes on: %v", err)
	}
	if _, err := s.Get(t.Context(), "orch/w1", "box"); err != nil {
		t.Errorf("its sandbox went, too: %v", err)
	}
	if _, body = v.do(t, "GET", "/tokens", nil); strings.Contains(body, "<code>orch</code>") || !strings.Contains(body, "revoked") {
		t.Errorf("what is left of it is shown as %s", body)
	}
	if status, body := v.do(t, "POST", "/tokens/destroy", url.Values{"name": {"solo"}}); status != http.StatusOK || !strings.Contains(body, "solo/box") {
		t.Errorf("%d %s", status, body)
	}
	if _, err := s.Get(t.Context(), "solo", "box"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("its sandbox is there: %v", err)
	}
	if status, _ := v.do(t, "POST", "/tokens/revoke", url.Values{"name": {"nobody"}}); status != http.StatusNotFound {
		t.Errorf("none: %d", status)
	}
}
