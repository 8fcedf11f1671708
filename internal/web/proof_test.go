package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"pixels/policy"
	"pixels/policy/approver"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// awaited has a script's promise be awaited.
func awaited(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

const passphrase = "four words and more"

func TestApprovingWantsThePassphrase(t *testing.T) {
	s := newSite(t, `approval = "passphrase"`)
	r := s.ask(t, "example.com", "")
	v := s.visitor(t)
	v.signIn(t)
	approve := func(with string) (int, string) {
		return v.do(t, "POST", "/requests/"+r.ID+"/approve", url.Values{"for": {"1h"}, "seen": {s.agent.Digest(r)}, "passphrase": {with}})
	}
	if status, body := approve(passphrase); status != http.StatusForbidden || !strings.Contains(body, "approval passphrase") {
		t.Errorf("before there is one: %d %s", status, body)
	}
	if err := approver.Beside(s.store.Path()).SetPassphrase("", passphrase); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"", "wrong"} {
		if status, body := approve(wrong); status != http.StatusForbidden {
			t.Errorf("%q: %d %s", wrong, status, body)
		}
	}
	// What an agent with a shell under another user, or with the tools alone, may try.
	human := s.door.Human("cli")
	if _, err := human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: human.Digest(r)}); err == nil {
		t.Error("approved without it")
	}
	if _, err := human.Allow(t.Context(), human.As("alice"), manager.AllowRequest{Name: "box", Domains: []string{"example.com"}}); err == nil {
		t.Error("allowed without it")
	}
	if _, err := human.SetEgress(t.Context(), human.As("alice"), "box", "unrestricted"); err == nil {
		t.Error("opened without it")
	}
	if _, err := human.Panic(t.Context(), "alice", "box-2", false); err != nil {
		t.Errorf("taking away needs none: %v", err)
	}
	if s.state(t, r.ID) != ledger.RequestOpen {
		t.Fatal("it is decided")
	}
	if status, body := approve(passphrase); status != http.StatusOK || s.state(t, r.ID) != ledger.RequestGranted {
		t.Errorf("%d %s", status, body)
	}
	// Wrong ones, also for a new key, cost time, one after another: and lock nobody out.
	other := s.ask(t, "other.example.com", "")
	start := time.Now()
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { v.do(t, "POST", "/passkeys/begin", url.Values{"passphrase": {"wrong"}}) })
	}
	all.Wait()
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("wrong passphrases took %s", took)
	}
	if status, body := v.do(t, "POST", "/requests/"+other.ID+"/approve", url.Values{"for": {"1h"}, "seen": {s.agent.Digest(other)}, "passphrase": {passphrase}}); status != http.StatusOK {
		t.Errorf("after wrong ones: %d %s", status, body)
	}
}

// A virtual authenticator stands in for a key.
func TestApprovingWantsThePasskey(t *testing.T) {
	s := newSite(t, `approval = "passkey"`)
	r := s.ask(t, "example.com", "to read the docs")
	name := "http://localhost:" + s.url[strings.LastIndex(s.url, ":")+1:]
	ctx := browser(t)
	authenticator := webauthn.AddVirtualAuthenticator(&webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	})
	said := func(text string) chromedp.Action {
		return comes(`(document.querySelector("[data-said]")?.textContent || "").includes(` + "`" + text + "`" + `)`)
	}
	run(t, ctx, webauthn.Enable(), chromedp.ActionFunc(func(ctx context.Context) error { _, err := authenticator.Do(ctx); return err }),
		chromedp.Navigate(name), chromedp.SendKeys("#token", token+kb.Enter, chromedp.ByQuery), chromedp.WaitVisible("[data-card]", chromedp.ByQuery),
		// Without a key there is no way; then one is made.
		calm, chromedp.Click("[data-approve]", chromedp.ByQuery), said("add a passkey"),
		chromedp.Navigate(name+"/passkeys"), chromedp.WaitVisible("[data-enrol]", chromedp.ByQuery))
	shoot(t, ctx, "passkeys")
	run(t, ctx, chromedp.Click("[data-enrol] button", chromedp.ByQuery), said("The passkey is kept"))
	if _, keys, err := approver.Beside(s.store.Path()).Set(); err != nil || keys != 1 {
		t.Fatalf("%d keys, %v", keys, err)
	}

	// Whoever knows the page's token, and has no key.
	named := *s
	named.url = name
	v := named.visitor(t)
	v.signIn(t)
	form := url.Values{"for": {"1h0m0s"}, "seen": {s.agent.Digest(r)}, "scope": {"lineage"}, "passphrase": {passphrase}}
	path := "/requests/" + r.ID + "/approve"
	for what, assertion := range map[string]string{"nothing": "", "nonsense": "{}", "a made-up one": `{"id":"AAAA","rawId":"AAAA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AAAA","signature":"AAAA"}}`} {
		form.Set("assertion", assertion)
		if status, body := v.do(t, "POST", path, form); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
	if status, body := v.do(t, "POST", "/passkeys/begin", url.Values{}); status != http.StatusForbidden || !strings.Contains(body, "set a passphrase first") {
		t.Errorf("another key is added by the token alone: %d %s", status, body)
	}
	if _, err := s.door.Human("cli").Approve(t.Context(), manager.Approval{ID: r.ID, Seen: s.agent.Digest(r)}); err == nil {
		t.Error("approved by the command line without a key")
	}

	// What was signed for one scope is of no use for another, nor twice.
	const sign = `(async (scope) => {
		const card = document.querySelector("[data-card] form"), body = new URLSearchParams(new FormData(card));
		body.set("assertion", await passkey(card.dataset.passkey, body, false));
		body.set("scope", scope);
		window.kept = body;
		const answer = await post(card.getAttribute("action"), body);
		return answer.status + " " + await answer.text();
	})`
	var answer string
	run(t, ctx, chromedp.Navigate(name), chromedp.WaitVisible("[data-card]", chromedp.ByQuery), chromedp.Evaluate(sign+`("once")`, &answer, awaited))
	if !strings.HasPrefix(answer, "403") || s.state(t, r.ID) != ledger.RequestOpen {
		t.Errorf("signed for those that asked, sent for once: %s", answer)
	}
	run(t, ctx, chromedp.Evaluate(`post(document.querySelector("[data-card] form").getAttribute("action"), (kept.set("scope", "asked"), kept)).then((a) => a.status + "")`, &answer, awaited))
	if answer != "403" || s.state(t, r.ID) != ledger.RequestOpen {
		t.Errorf("a second time: %s", answer)
	}
	run(t, ctx, calm, chromedp.Click("[data-approve]", chromedp.ByQuery), said("example.com is in reach of box"))
	if r, err := s.store.Request(r.ID); err != nil || r.State != ledger.RequestGranted {
		t.Errorf("%+v, %v", r, err)
	}
}

// Whoever can write the database makes no grant by it: what a sandbox may reach is kept with the sandbox.
func TestWritingTheRecordGrantsNothing(t *testing.T) {
	s := newSite(t, "")
	r := s.ask(t, "example.com", "")
	if _, err := s.store.Claim(r.ID, "whoever", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Grant(r.ID, "whoever", policy.ThisLineage, r.Expires, ""); err != nil {
		t.Fatal(err)
	}
	box, err := s.Get(t.Context(), "alice", "box")
	if err != nil || len(box.Rules) != 0 {
		t.Errorf("%+v, %v", box.Rules, err)
	}
}
