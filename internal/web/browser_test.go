package web

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// profile is a folder for the browser, whose processes write to it a moment longer than it runs.
func profile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pixels-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			if err := os.RemoveAll(dir); err == nil {
				return
			} else if time.Now().After(end) {
				t.Error(err)
				return
			}
		}
	})
	return dir
}

// browser starts Chromium, which `make test` installs.
func browser(t *testing.T) context.Context {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium here: `make test` installs it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.WindowSize(1280, 900), chromedp.UserDataDir(profile(t)),
		chromedp.Env("HOME="+profile(t)))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) }) // in good order first
	return ctx
}

// run does actions in the browser.
func run(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		var text string
		_ = chromedp.Run(ctx, chromedp.Text("body", &text, chromedp.ByQuery))
		t.Fatalf("%v; the page says %s", err, text)
	}
}

// calm waits until keys and buttons decide again, after the list changed.
var calm = comes(`settled()`)

// comes waits until a JavaScript expression is true, also over a change of page.
func comes(expression string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		var last error
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
			ok := false
			if last = chromedp.Evaluate(expression, &ok).Do(ctx); last == nil && ok {
				return nil
			}
		}
		var what any
		left, _, _ := strings.Cut(expression, " === ")
		_ = chromedp.Evaluate(left, &what).Do(ctx)
		return fmt.Errorf("not within 15 s: %s (it is %v, %v)", expression, what, last)
	})
}

// shoot takes pictures of the page, wide and narrow, light and dark, where PIXELS_SCREENSHOTS names a folder for them.
func shoot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("PIXELS_SCREENSHOTS")
	if dir == "" {
		return
	}
	for _, scheme := range []string{"light", "dark"} {
		for width, suffix := range map[int64]string{1440: "wide", 390: "phone"} {
			var picture []byte
			run(t, ctx,
				emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
				emulation.SetDeviceMetricsOverride(width, 900, 1, width < 500), chromedp.Sleep(700*time.Millisecond),
				chromedp.ActionFunc(func(ctx context.Context) (err error) {
					picture, err = cdppage.CaptureScreenshot().WithCaptureBeyondViewport(true).Do(ctx)
					return err
				}))
			if err := os.WriteFile(filepath.Join(dir, name+"-"+suffix+"-"+scheme+".png"), picture, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(t, ctx, emulation.ClearDeviceMetricsOverride(), emulation.SetEmulatedMedia())
}

// The page in a real browser, as a human uses it.
func TestTheBrowser(t *testing.T) {
	s := newSite(t, "")
	ctx := browser(t)
	run(t, ctx, chromedp.Navigate(s.url), chromedp.WaitVisible("#token", chromedp.ByQuery))
	shoot(t, ctx, "login")
	run(t, ctx, chromedp.SendKeys("#token", "wrong"+kb.Enter, chromedp.ByQuery), chromedp.WaitVisible("#wrong", chromedp.ByQuery))
	run(t, ctx, chromedp.SendKeys("#token", token+kb.Enter, chromedp.ByQuery), comes(`document.querySelector(".live.on") !== null`), chromedp.WaitVisible(".empty", chromedp.ByQuery))
	shoot(t, ctx, "empty")
	if held, err := s.store.Held("human:"); err != nil || !held {
		t.Errorf("who has the page open does not count as there: %v", err)
	}

	// A card arrives by itself, and is approved by keyboard alone.
	first := s.ask(t, "docs.example.com", "to read how the API is used")
	run(t, ctx, comes(`document.querySelectorAll("[data-card]").length === 1`))
	second := s.ask(t, "*.tracker.example.org", `it's "needed" <b>now</b>`)
	third := s.ask(t, "db.example.net:5432", "")
	run(t, ctx, comes(`document.querySelectorAll("[data-card]").length === 3 && document.title.startsWith("(3)")`))
	shoot(t, ctx, "cards")
	run(t, ctx, chromedp.KeyEvent("j"), comes(`document.activeElement.id === "`+first.ID+`"`), calm, chromedp.KeyEvent("a"), comes(`document.querySelectorAll("[data-card]").length === 2`),
		comes(`document.querySelector("[data-said]").textContent.includes("docs.example.com is in reach of box")`))
	if r, err := s.store.Request(first.ID); err != nil || r.State != ledger.RequestGranted || r.Scope != policy.Askers || r.DecidedBy != "web, from 127.0.0.1" {
		t.Errorf("%+v, %v", r, err)
	}
	// The focus goes to no other card by itself. Typing in a field decides nothing.
	run(t, ctx, comes(`document.activeElement.id === "main"`),
		chromedp.SendKeys("#"+cssID(second.ID)+" .answer", "not that, adjust", chromedp.ByQuery), chromedp.Sleep(300*time.Millisecond))
	if s.state(t, second.ID) != ledger.RequestOpen {
		t.Error("typing decided")
	}
	s.ask(t, "*.tracker.example.org", "again") // the card is renewed, and what was typed stays
	run(t, ctx, comes(`document.querySelector("#`+cssID(second.ID)+` header").textContent.includes("2 times")`),
		comes(`document.querySelector("#`+cssID(second.ID)+` .answer").value === "not that, adjust"`),
		calm, chromedp.Click("#"+cssID(second.ID)+" [data-deny]", chromedp.ByQuery), comes(`document.querySelectorAll("[data-card]").length === 1`))
	if r, err := s.store.Request(second.ID); err != nil || r.State != ledger.RequestDenied || r.Answer != "not that, adjust" {
		t.Errorf("%+v, %v", r, err)
	}
	// By mouse: another scope, another end.
	run(t, ctx, chromedp.SetValue("#"+cssID(third.ID)+" select", "15m0s", chromedp.ByQuery),
		calm, chromedp.Click("#"+cssID(third.ID)+" [data-approve]", chromedp.ByQuery), comes(`document.querySelector(".empty") !== null`))
	if r, err := s.store.Request(third.ID); err != nil || r.Scope != policy.Askers || time.Until(r.Until) > 15*time.Minute {
		t.Errorf("%+v, %v", r, err)
	}
	// Decided elsewhere, a card goes.
	fourth := s.ask(t, "elsewhere.example.com", "")
	run(t, ctx, comes(`document.querySelectorAll("[data-card]").length === 1`))
	if _, err := s.door.Human("cli").Refuse(t.Context(), manager.Approval{ID: fourth.ID, By: "cli"}); err != nil {
		t.Fatal(err)
	}
	run(t, ctx, comes(`document.querySelectorAll("[data-card]").length === 0`))
	shoot(t, ctx, "decided")

	// What was granted stands on a page of its own, and is taken back there.
	s.store.Add(ledger.Record{Kind: ledger.Connected, Owner: "alice", Sandbox: "box", Verdict: "allowed", Target: "docs.example.com", Count: 7})
	run(t, ctx, chromedp.Navigate(s.url+"/grants"), chromedp.WaitVisible("table", chromedp.ByQuery), comes(`document.querySelector("table").textContent.includes("7 times")`))
	shoot(t, ctx, "grants")
	run(t, ctx, chromedp.Click(`button[aria-label="Revoke docs.example.com of box"]`, chromedp.ByQuery), comes(`document.querySelector("[data-said]").textContent.includes("docs.example.com is taken back from box")`),
		comes(`!document.querySelector("table").textContent.includes("docs.example.com")`))
	if r, err := s.store.Request(first.ID); err != nil || r.State != ledger.RequestRevoked {
		t.Errorf("%+v, %v", r, err)
	}

	// A token is ended by its button, and so is what was below it.
	eight := int64(8)
	for _, made := range []ledger.Token{{Name: "orchestrator", Limits: policy.Limits{Sandboxes: &eight, Modes: &[]egress.Mode{egress.None, egress.Agent}}}, {Name: "orchestrator/worker-1", Expires: time.Now().Add(time.Hour)}, {Name: "ci"}} {
		if _, err := s.door.Human("test").CreateToken(t.Context(), made); err != nil {
			t.Fatal(err)
		}
	}
	run(t, ctx, chromedp.Navigate(s.url+"/tokens"), chromedp.WaitVisible("table", chromedp.ByQuery), comes(`document.querySelectorAll("tbody tr").length === 3`))
	shoot(t, ctx, "tokens")
	run(t, ctx, chromedp.Click(`button[aria-label="Revoke orchestrator"]`, chromedp.ByQuery), comes(`document.querySelectorAll("tbody tr").length === 1`))

	// A sandbox is cut off.
	run(t, ctx, chromedp.Navigate(s.url+"/sandboxes"), chromedp.WaitVisible("table", chromedp.ByQuery))
	shoot(t, ctx, "sandboxes")
	run(t, ctx, chromedp.Evaluate(`window.confirm = () => true`, nil), chromedp.Click(`button[aria-label="Cut box-1 off"]`, chromedp.ByQuery),
		comes(`document.querySelector("[data-said]").textContent.includes("Cut off: box-1")`))
	if box, err := s.Get(t.Context(), "alice", "box-1"); err != nil || box.Egress != egress.None {
		t.Errorf("%+v, %v", box, err)
	}

	// The record is filtered.
	run(t, ctx, chromedp.Navigate(s.url+"/audit"), chromedp.WaitVisible("table", chromedp.ByQuery))
	shoot(t, ctx, "record")
	var rows string
	run(t, ctx, chromedp.SetValue("select[name=kind]", "answer", chromedp.ByQuery), chromedp.SendKeys("input[name=text]", "tracker"+kb.Enter, chromedp.ByQuery),
		comes(`location.search.includes("tracker")`), chromedp.WaitVisible("tbody", chromedp.ByQuery), chromedp.Text("tbody", &rows, chromedp.ByQuery))
	if !strings.Contains(rows, "tracker.example.org") || !strings.Contains(rows, "denied") || strings.Contains(rows, "docs.example.com") {
		t.Errorf("filtered it shows %s", rows)
	}
	// On a phone no page is wider than it.
	s.ask(t, "a-name-that-is-rather-long-and-goes-on-for-a-while.of.a.host.somewhere.example.com:5432", "because")
	for _, path := range []string{"/", "/grants", "/tokens", "/sandboxes", "/audit", "/passkeys"} {
		wide := 0
		run(t, ctx, emulation.SetDeviceMetricsOverride(360, 800, 1, true), chromedp.Navigate(s.url+path), chromedp.WaitReady("#main", chromedp.ByQuery), comes(`document.querySelector(".live.on") !== null`),
			chromedp.Evaluate(`document.documentElement.scrollWidth`, &wide))
		if wide > 360 {
			t.Errorf("%s is %d wide", path, wide)
		}
	}
	run(t, ctx, emulation.ClearDeviceMetricsOverride())
	// Nothing of the page was refused by its own rules, and nothing came from elsewhere.
	var foreign []string
	run(t, ctx, chromedp.Evaluate(`performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith(location.origin))`, &foreign))
	if len(foreign) > 0 {
		t.Errorf("it loads %v", foreign)
	}
}

// cssID writes an ID for a selector.
func cssID(id string) string { return strings.ReplaceAll(id, ".", `\.`) }
