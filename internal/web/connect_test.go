package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"pixels/policy"
	"pixels/policy/ledger"
)

// wish has a client wish for a token, whose answer goes to an address.
func (s *site) wish(t *testing.T, name, back string) (id string) {
	t.Helper()
	id, err := s.store.Ask(ledger.Authorization{Client: "a-client", ClientName: name, Redirect: back, State: "s", Challenge: "c", Issuer: "http://127.0.0.1:8765", Scope: "pixels"})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Who signed in sees which client wants a token, and grants it with the caps that they choose; nobody else does either.
func TestConnectOnThePage(t *testing.T) {
	s := newSite(t, "")
	const back = "http://127.0.0.1:9/back"
	id := s.wish(t, `Claude <b>Code</b>`, back)
	stranger := s.visitor(t)
	if _, body := stranger.do(t, "GET", "/connect/"+id, nil); strings.Contains(body, "Claude") {
		t.Error(body)
	}
	form := func(more ...string) url.Values {
		f := url.Values{"name": {"claude-code"}, "sandboxes": {"3"}, "egress": {"none", "agent"}, "for": {"24h"}, "lease": {"2h"}}
		for i := 0; i < len(more); i += 2 {
			f.Set(more[i], more[i+1])
		}
		return f
	}
	for _, path := range []string{"/connect/" + id, "/connect/" + id + "/decline"} {
		if status, _ := stranger.do(t, "POST", path, form()); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", path, status)
		}
	}
	v := s.visitor(t)
	v.signIn(t)
	_, body := v.do(t, "GET", "/connect/"+id, nil)
	for _, shown := range []string{"Claude &lt;b&gt;Code", `value="claude-b-code-b"`, "http://127.0.0.1:9", "nobody has checked", "the machine of this browser"} {
		if !strings.Contains(body, shown) {
			t.Errorf("%q is not shown in %s", shown, body)
		}
	}
	for what, f := range map[string]url.Values{
		"a name": form("name", "Not A Name"), "a user of this machine": form("name", "root"), "who owns something": form("name", "alice"), "no name": form("name", ""), "sandboxes": form("sandboxes", "-1"), "words": form("sandboxes", "many"),
		"a mode": form("egress", "all"), "no end": form("for", ""), "an end that is over": form("for", "-1h"), "a lease": form("lease", "soon"),
	} {
		if status, body := v.do(t, "POST", "/connect/"+id, f); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
	r, _ := http.NewRequest("POST", s.url+"/connect/"+id, strings.NewReader(form("cpu", "4", "memory", "2GiB", "read_only", "yes").Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set(sessionHeader, v.secret)
	answer, err := v.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	onward, _ := url.Parse(answer.Header.Get(onwardHeader))
	if answer.StatusCode != 200 || !strings.HasPrefix(onward.String(), back+"?") || onward.Query().Get("iss") != "http://127.0.0.1:8765" {
		t.Fatalf("%s, to %s", answer.Status, onward)
	}
	caps, err := s.store.Caps("claude-code")
	if err != nil || *caps.Sandboxes != 3 || *caps.CPU != 4 || *caps.Memory != 2<<30 || len(*caps.Modes) != 2 || caps.MaxLease.Hours() != 2 || len(*caps.Tools) != len(policy.ReadOnly) {
		t.Errorf("%+v, %v", caps, err)
	}
	if in, err := s.store.Redeem(onward.Query().Get("code")); err != nil || in.Token != "claude-code" {
		t.Error(in.Token, err)
	}
	if status, _ := v.do(t, "POST", "/connect/"+id, form()); status != http.StatusNotFound {
		t.Errorf("twice: %d", status)
	}
	if status, _ := v.do(t, "GET", "/connect/"+id, nil); status != http.StatusNotFound {
		t.Errorf("after it was answered: %d", status)
	}
	// The same again: its sandboxes are its own then, and the caps new ones.
	id = s.wish(t, "Claude Code", back)
	if _, body := v.do(t, "GET", "/connect/"+id, nil); !strings.Contains(body, `<option value="claude-code">`) {
		t.Error(body)
	}
	if status, body := v.do(t, "POST", "/connect/"+id, form("sandboxes", "1")); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if caps, _ := s.store.Caps("claude-code"); *caps.Sandboxes != 1 || caps.Tools != nil {
		t.Errorf("%+v", caps)
	}
	if _, body := v.do(t, "GET", "/tokens", nil); !strings.Contains(body, "Claude Code") {
		t.Error("the tokens don't say whose it is")
	}
	id = s.wish(t, "", "myapp:/back")
	if _, body := v.do(t, "GET", "/connect/"+id, nil); !strings.Contains(body, "without a name") || !strings.Contains(body, "<strong>myapp:</strong>") {
		t.Error(body)
	}
	if status, _ := v.do(t, "POST", "/connect/"+id+"/decline", url.Values{}); status != 200 {
		t.Error(status)
	}
	if _, err := s.store.Asked(id); !errors.Is(err, ledger.ErrAuthorization) {
		t.Error(err)
	}
}

// A human whom a client sends here signs in, chooses, and is back at the client.
func TestConnectInTheBrowser(t *testing.T) {
	s := newSite(t, "")
	codes := make(chan string, 1)
	client := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			select {
			case codes <- r.FormValue("code") + r.FormValue("error"):
			default:
			}
		}
		fmt.Fprint(w, "<h1>you are back</h1>")
	}))
	t.Cleanup(client.Close)
	ctx := browser(t)
	id := s.wish(t, "Claude Code", client.URL+"/back")
	run(t, ctx, chromedp.Navigate(s.url+"/connect/"+id), chromedp.WaitVisible("#token", chromedp.ByQuery), chromedp.SendKeys("#token", token+kb.Enter, chromedp.ByQuery),
		chromedp.WaitVisible(".connect", chromedp.ByQuery))
	shoot(t, ctx, "connect")
	run(t, ctx, chromedp.SetValue("[name=sandboxes]", "2", chromedp.ByQuery), chromedp.Click(".connect .primary", chromedp.ByQuery), comes(`document.body.textContent.includes("you are back")`))
	if in, err := s.store.Redeem(<-codes); err != nil || in.Token != "claude-code" {
		t.Error(in.Token, err)
	}
	if caps, err := s.store.Caps("claude-code"); err != nil || *caps.Sandboxes != 2 || len(*caps.Modes) != 2 {
		t.Errorf("%+v, %v", caps, err)
	}
	id = s.wish(t, "Claude Code", client.URL+"/back")
	run(t, ctx, chromedp.Navigate(s.url+"/connect/"+id), chromedp.WaitVisible(".connect", chromedp.ByQuery), chromedp.Click(".connect .danger", chromedp.ByQuery),
		comes(`document.body.textContent.includes("you are back")`))
	if got := <-codes; got != "access_denied" {
		t.Errorf("after a no: %s", got)
	}
}
