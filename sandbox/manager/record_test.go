package manager_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pixels/egress"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

func TestTheRecordSaysWhatWasDone(t *testing.T) {
	a := newAsked(t, "")
	r := a.askFor(t, "c1", "x.example.com", "", 0)
	_, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.seen(t, r.ID), By: "cli, by ann", For: time.Hour, Answer: "go on"})
	if err == nil {
		_, err = a.agent.Deny(t.Context(), manager.Agent("me"), "c1", []string{"x.example.com", "*.example.net"})
	}
	if err == nil {
		_, err = a.human.SetEgress(t.Context(), a.human.As("me"), "c1", egress.None)
	}
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, is func(ledger.Record) bool) {
		t.Helper()
		var list []ledger.Record
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if list, err = a.human.Records(ledger.Query{Sandbox: "c1"}); err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(list, is) {
				return
			}
		}
		t.Errorf("no record of %s: %+v", what, list)
	}
	want("the answer, with its scope and end, and by whom", func(r ledger.Record) bool {
		return r.Kind == ledger.Answered && r.Channel == "cli" && strings.Contains(r.Detail, "for those that asked: c1, until 20") && strings.Contains(r.Detail, "by ann, go on")
	})
	want("the grant", func(r ledger.Record) bool {
		return r.Kind == ledger.Changed && strings.HasPrefix(r.Target, "+x.example.com until 20") && r.Channel == "test"
	})
	want("the call to deny", func(r ledger.Record) bool {
		return r.Kind == ledger.Decided && r.Tool == "deny_domain" && r.Target == "not x.example.com:* not *.example.net:*"
	})
	want("the denial", func(r ledger.Record) bool {
		return r.Kind == ledger.Changed && strings.HasPrefix(r.Target, "-x.example.com until 20")
	})
	want("the change of mode", func(r ledger.Record) bool {
		return r.Kind == ledger.Changed && r.Target == "allowlist to none" && r.Detail == "0 connections cut"
	})
}
