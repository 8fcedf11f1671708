package manager_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

func (a *asked) grants(t *testing.T, name string) []manager.Standing {
	t.Helper()
	list, err := a.human.Grants(t.Context(), "me", name)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestWhatWasGrantedIsSeenAndTakenBack(t *testing.T) {
	a := newAsked(t, "")
	if _, has := any(a.agent).(interface {
		Grants(context.Context, string, string) ([]manager.Standing, error)
	}); has {
		t.Error("an agent sees them")
	}
	waitOwner(t, a.store)
	one, wide, once := a.askFor(t, "c1", "one.example.com", "", 0), a.askFor(t, "c2", "*.example.net", "", 0), a.askFor(t, "c3", "once.example.com", "", 0)
	for _, answer := range []manager.Approval{{ID: one.ID, Scope: policy.Askers}, {ID: wide.ID, Scope: policy.ThisLineage, For: time.Hour}, {ID: once.ID, Scope: policy.Once}} {
		answer.Seen, answer.By = a.seen(t, answer.ID), "test"
		if _, err := a.human.Approve(t.Context(), answer); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.human.Allow(t.Context(), a.human.As("me"), manager.AllowRequest{Name: "box", Domains: []string{"by.example.org"}, Reason: "the docs"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		a.store.Add(ledger.Record{Kind: ledger.Connected, Owner: "me", Sandbox: "c3", Verdict: "allowed", Target: "www.example.net", Count: 2})
	}
	a.store.Add(ledger.Record{Kind: ledger.Connected, Owner: "me", Sandbox: "c3", Verdict: "denied", Target: "www.example.net"})
	a.store.Add(ledger.Record{Kind: ledger.Connected, Owner: "other", Sandbox: "c3", Verdict: "allowed", Target: "www.example.net"})
	used := func() manager.Standing {
		list := a.grants(t, "")
		return list[slices.IndexFunc(list, func(g manager.Standing) bool { return g.Request == wide.ID })]
	}
	for end := time.Now().Add(5 * time.Second); used().Uses != 6 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	list := a.grants(t, "")
	if len(list) != 4 || list[0].From != "human, test, by me: the docs" || list[0].Request != "" {
		t.Fatalf("%+v", list)
	}
	if g := used(); g.Uses != 6 || g.Last.IsZero() || !slices.Equal(g.Names, []string{"box", "c1", "c2", "c3"}) || g.Scope != policy.ThisLineage || time.Until(g.Until) > time.Hour {
		t.Errorf("%+v", g)
	}
	if list := a.grants(t, "c1"); len(list) != 2 {
		t.Errorf("of one sandbox: %+v", list)
	}

	for _, r := range []ledger.Request{one, wide, once} {
		if _, names, err := a.human.RevokeRequest(t.Context(), r.ID, "test"); err != nil || len(names) == 0 {
			t.Errorf("%s: %v, %v", r.Subject, names, err)
		}
		if r, err := a.agent.WaitRequest(t.Context(), manager.Agent("me"), r.ID, 0); err != nil || r.State != ledger.RequestRevoked {
			t.Errorf("who asks about it hears %+v, %v", r, err)
		}
	}
	if a.reaches(t, "c1", "one.example.com") || a.reaches(t, "box", "www.example.net") || a.reaches(t, "c3", "once.example.com") || !a.reaches(t, "box", "by.example.org") {
		t.Error("not what was revoked, or more")
	}
	if _, _, err := a.human.RevokeRequest(t.Context(), one.ID, "test"); !errors.Is(err, sandbox.ErrState) {
		t.Errorf("twice: %v", err)
	}
	if again := a.askFor(t, "c1", "one.example.com", "", 0); again.State != ledger.RequestOpen || again.ID == one.ID {
		t.Errorf("asked again: %+v", again)
	}
	if _, err := a.human.RevokeRules(t.Context(), "me", "box", []string{"by.example.org"}); err != nil || a.reaches(t, "box", "by.example.org") {
		t.Errorf("%v", err)
	}
	if _, err := a.human.RevokeRules(t.Context(), "me", "box", []string{"by.example.org"}); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
	if list := a.grants(t, ""); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// waitOwner waits until the record has the owner, which is written behind the calls.
func waitOwner(t *testing.T, store *ledger.Store) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		owners, err := store.Owners()
		if err != nil || time.Now().After(end) {
			t.Fatal(owners, err)
		}
		if slices.Contains(owners, "me") {
			return
		}
	}
}

func TestThePolicyGrantsWithScopeAndTime(t *testing.T) {
	a := newAsked(t, `[egress]
allow = ["free.example.com", { domain = "short.example.com", scope = "asked", for = "2h" }]`)
	a.allow(t, "c1", "free.example.com", "short.example.com")
	a.allow(t, "c2", "short.example.com")
	box, err := a.Get(t.Context(), "me", "c1")
	if err != nil || len(box.Rules) != 2 {
		t.Fatalf("%+v, %v", box.Rules, err)
	}
	for _, g := range box.Rules {
		short := g.Rule.Domain == "short.example.com"
		if g.Alone != short || short != (time.Until(g.Until) <= 2*time.Hour) {
			t.Errorf("%+v", g)
		}
	}
	if copied := egress.Inherited(box.Rules); len(copied) != 1 || copied[0].Rule.Domain != "free.example.com" {
		t.Errorf("a copy has %+v", copied)
	}
	var given []manager.Allowance
	for end := time.Now().Add(5 * time.Second); (len(given) < 2 || given[0].Given < 1 || given[1].Given < 2) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if given, err = a.human.Allowances("me"); err != nil {
			t.Fatal(err)
		}
	}
	if given[0].Given != 1 || given[1].Given != 2 || given[1].Last.IsZero() || given[1].For != "2h" || given[1].Scope != policy.Askers {
		t.Errorf("%+v", given)
	}
}
