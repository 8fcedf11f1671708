package policy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestAWebhookHearsOnceOfEachRequest(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	failures := 1
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if failures > 0 {
			failures--
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		heard = append(heard, string(b))
	}))
	defer hook.Close()
	set := parse(t, fmt.Sprintf("page = \"http://127.0.0.1:7467/\"\nwebhook = %q", hook.URL))
	s, said := openStore(t, filepath.Join(t.TempDir(), "pixels.db"))
	s.Fresh = func(r Request) {
		if err := set.Notify(t.Context(), r); err != nil {
			said.say(err)
		}
	}
	first := ask("alice", "base", "example.com")
	first.Source, first.Reason = ByAgent, "to read the docs"
	r, _ := raise(t, s, first)
	raise(t, s, first) // the same question
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var n Notice
	if len(heard) != 1 || json.Unmarshal([]byte(heard[0]), &n) != nil || n.ID != r.ID || n.Domain != "example.com" || n.Link != "http://127.0.0.1:7467/requests/"+r.ID || !strings.Contains(n.Text, "to read the docs") {
		t.Errorf("it heard %v", heard)
	}
	if said.all() != "[]" {
		t.Error(said.all())
	}
}

func TestAWebhookThatFailsIsSaidWithoutItsAddress(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	hook := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	set := parse(t, fmt.Sprintf("webhook = \"%s/secret\"", hook.URL))
	if err := set.Notify(t.Context(), Request{ID: "req-1"}); err == nil || !strings.Contains(err.Error(), "307") {
		t.Error(err)
	}
	hook.Close()
	if err := set.Notify(t.Context(), Request{ID: "req-1"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	if _, err := Parse("webhook = \"ftp://example.com\""); err == nil || !strings.Contains(err.Error(), "line 1: webhook") {
		t.Error(err)
	}
	if err := parse(t, "").Notify(t.Context(), Request{}); err != nil {
		t.Errorf("without one: %v", err)
	}
}
