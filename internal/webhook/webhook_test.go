package webhook

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

	"pixels/policy"
	"pixels/policy/ledger"
)

func parse(t testing.TB, text string) *policy.Set {
	t.Helper()
	set, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

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
	var said []error
	s, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { said = append(said, err) })
	if err != nil {
		t.Fatal(err)
	}
	s.Fresh = func(r ledger.Request) {
		if err := Notify(t.Context(), set, r); err != nil {
			said = append(said, err)
		}
	}
	first := ledger.Request{Owner: "alice", Sandbox: "base-1", Lineage: "base", Subject: "example.com", Source: ledger.ByAgent, Reason: "to read the docs"}
	r, _, err := s.Raise(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Raise(first); err != nil { // the same question
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var n Notice
	if len(heard) != 1 || json.Unmarshal([]byte(heard[0]), &n) != nil || n.ID != r.ID || n.Domain != "example.com" || n.Link != "http://127.0.0.1:7467/requests/"+r.ID || !strings.Contains(n.Text, "to read the docs") {
		t.Errorf("it heard %v", heard)
	}
	if len(said) > 0 {
		t.Error(said)
	}
}

func TestAWebhookThatFailsIsSaidWithoutItsAddress(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	hook := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	set := parse(t, fmt.Sprintf("webhook = \"%s/secret\"", hook.URL))
	if err := Notify(t.Context(), set, ledger.Request{ID: "req-1"}); err == nil || !strings.Contains(err.Error(), "307") {
		t.Error(err)
	}
	hook.Close()
	if err := Notify(t.Context(), set, ledger.Request{ID: "req-1"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	if _, err := policy.Parse("webhook = \"ftp://example.com\""); err == nil || !strings.Contains(err.Error(), "line 1: webhook") {
		t.Error(err)
	}
	if err := Notify(t.Context(), parse(t, ""), ledger.Request{}); err != nil {
		t.Errorf("without one: %v", err)
	}
}
