package web

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// holdDown presses a key and lets it repeat, as a keyboard does.
func holdDown(key string, times int) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		for i := range times {
			down := input.DispatchKeyEvent(input.KeyDown).WithKey(key).WithText(key).WithAutoRepeat(i > 0)
			if err := down.Do(ctx); err != nil {
				return err
			}
			time.Sleep(40 * time.Millisecond)
		}
		return input.DispatchKeyEvent(input.KeyUp).WithKey(key).Do(ctx)
	})
}

func (s *site) open(t *testing.T) int {
	t.Helper()
	list, err := s.store.Requests("", 0, ledger.RequestOpen)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestOnePressIsOneDecision(t *testing.T) {
	s := newSite(t, "")
	ctx := browser(t)
	first := s.ask(t, "one.example.com", "")
	second := s.ask(t, "two.example.com", "")
	wide := s.ask(t, "*.example.net", "to fetch packages")
	run(t, ctx, chromedp.Navigate(s.url), chromedp.WaitVisible("#token", chromedp.ByQuery), chromedp.SendKeys("#token", token+kb.Enter, chromedp.ByQuery),
		comes(`document.querySelectorAll("[data-card]").length === 3`))
	// Right after the list came no key decides.
	run(t, ctx, chromedp.KeyEvent("j"), chromedp.KeyEvent("a"), chromedp.Sleep(300*time.Millisecond))
	if s.open(t) != 3 {
		t.Fatal("a key decided at once")
	}
	// A key that is held down decides once.
	run(t, ctx, calm, holdDown("a", 60), comes(`document.querySelectorAll("[data-card]").length === 2`), chromedp.Sleep(300*time.Millisecond))
	if s.state(t, first.ID) != ledger.RequestGranted || s.open(t) != 2 {
		t.Errorf("%d are open", s.open(t))
	}
	// A card that is decided elsewhere leaves its neighbour alone.
	run(t, ctx, chromedp.KeyEvent("j"), comes(`document.activeElement.id === "`+second.ID+`"`), calm)
	if _, err := s.door.Human("cli").Refuse(t.Context(), manager.Approval{ID: second.ID, By: "cli"}); err != nil {
		t.Fatal(err)
	}
	run(t, ctx, comes(`document.querySelectorAll("[data-card]").length === 1`), chromedp.KeyEvent("a"), calm, chromedp.KeyEvent("a"), chromedp.Sleep(300*time.Millisecond))
	if s.state(t, wide.ID) != ledger.RequestOpen {
		t.Error("the neighbour was granted")
	}
	// A wildcard wants a second press, on what names it; another choice takes that back.
	card := "#" + cssID(wide.ID)
	run(t, ctx, chromedp.Click(card+" [data-approve]", chromedp.ByQuery), comes(`document.querySelector("`+card+` [data-approve]").textContent.includes("every name below example.net")`))
	shoot(t, ctx, "second-press")
	run(t, ctx, chromedp.Click(card+" [value=lineage]", chromedp.ByQuery), comes(`document.querySelector("`+card+` [data-approve]").textContent === "Approve"`))
	if s.state(t, wide.ID) != ledger.RequestOpen {
		t.Error("one press granted a wildcard")
	}
	run(t, ctx, chromedp.SetValue(card+" select", "168h0m0s", chromedp.ByQuery), chromedp.Click(card+" [data-approve]", chromedp.ByQuery),
		comes(`document.querySelector("`+card+` [data-approve]").textContent.includes("for 7d")`), chromedp.Click(card+" [data-approve]", chromedp.ByQuery), comes(`document.querySelector(".empty") !== null`))
	if r, err := s.store.Request(wide.ID); err != nil || r.State != ledger.RequestGranted || r.Scope != policy.ThisLineage {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestMuchIsAskedForTwice(t *testing.T) {
	s := newSite(t, "")
	human := s.door.Human("test")
	weight := func(r ledger.Request, a manager.Approval) string {
		t.Helper()
		a.ID = r.ID
		text, err := human.Weight(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	plain := s.ask(t, "one.example.com", "")
	if got := weight(plain, manager.Approval{}) + weight(plain, manager.Approval{Scope: policy.ThisLineage, For: 24 * time.Hour}); got != "" {
		t.Errorf("one domain for a day: %s", got)
	}
	if got := weight(plain, manager.Approval{For: 25 * time.Hour}); !strings.Contains(got, "for 25h") && !strings.Contains(got, "for 1d") {
		t.Errorf("more than a day: %q", got)
	}
	if got := weight(s.ask(t, "one.example.com:1-9", ""), manager.Approval{}); !strings.Contains(got, "range of ports") {
		t.Errorf("a range: %q", got)
	}
	for i := range 19 {
		if _, err := s.agent.Clone(t.Context(), manager.Agent("alice"), manager.CloneRequest{Source: "box:one", Names: []string{fmt.Sprint("more-", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := weight(plain, manager.Approval{Scope: policy.ThisLineage}); !strings.Contains(got, "to 22 sandboxes") {
		t.Errorf("many: %q", got)
	}
}

func TestACardShowsWhatMatters(t *testing.T) {
	s := newSite(t, "")
	ctx := browser(t)
	no := s.ask(t, "pаypal.example.com", "") // its first a is Cyrillic
	if _, err := s.door.Human("cli").Refuse(t.Context(), manager.Approval{ID: no.ID, By: "cli"}); err != nil {
		t.Fatal(err)
	}
	box, err := s.Get(t.Context(), "alice", "box-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.door.Human("cli").Allow(t.Context(), s.door.Human("cli").As("alice"), manager.AllowRequest{Name: "box-1", Domains: []string{"docs.example.org"}}); err != nil {
		t.Fatal(err)
	}
	held := ledger.Request{Owner: "alice", Sandbox: "box-1", Born: box.CreatedAt, Lineage: box.Lineage, Subject: "*." + no.Subject, Source: ledger.ByConnection, Process: "7 curl", Held: time.Now().Add(4 * time.Second)}
	if _, _, err := s.store.Raise(held); err != nil {
		t.Fatal(err)
	}
	run(t, ctx, chromedp.Navigate(s.url), chromedp.WaitVisible("#token", chromedp.ByQuery), chromedp.SendKeys("#token", token+kb.Enter, chromedp.ByQuery), chromedp.WaitVisible("[data-card]", chromedp.ByQuery))
	var text string
	run(t, ctx, comes(`/waits for your answer, for [1-4] s/.test(document.querySelector("[data-held]").textContent)`), chromedp.Text("[data-card]", &text, chromedp.ByQuery))
	for _, want := range []string{"xn--", "*.pаypal.example.com", "mixes letters of Cyrillic and Latin", "alice/box-1", "made", "docs.example.org", "Process, as the sandbox claims", "7 curl", "every name below"} {
		if !strings.Contains(text, want) {
			t.Errorf("the card has no %q: %s", want, text)
		}
	}
	run(t, ctx, comes(`document.querySelector("[data-held]").textContent.includes("the agent must try again")`))
	// The agent's words come to the card that is there.
	if got, err := s.agent.Allow(t.Context(), manager.Agent("alice"), manager.AllowRequest{Name: "box-2", Domains: []string{held.Subject}, Reason: "to pay"}); err != nil || len(got.Requests) != 1 {
		t.Fatal(got, err)
	}
	run(t, ctx, comes(`document.querySelector("[data-card]").textContent.includes("to pay")`), comes(`document.querySelector("[data-card]").textContent.includes("the 2 that asked")`))
	shoot(t, ctx, "held")
}
