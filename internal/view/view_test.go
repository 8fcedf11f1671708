package view

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// What a sandbox has none of is not in its JSON.
func TestEmptyFieldsAreAbsent(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		what any
		want string
	}{
		{SandboxOf(sandbox.Sandbox{Name: "box", State: sandbox.Stopped, Owner: "me", From: "base", Egress: egress.None, Labels: map[string]string{}, CreatedAt: at}),
			`{"name":"box","state":"stopped","owner":"me","from":"base","egress":"none","created_at":"2026-01-02T03:04:05Z"}`},
		{CheckpointOf(sandbox.Checkpoint{Label: "one", CreatedAt: at, Cost: 7}), `{"label":"one","created_at":"2026-01-02T03:04:05Z","size":0}`},
		{RequestOf(ledger.Request{ID: "req-1", Subject: "example.com", State: ledger.RequestGranting}), `{"id":"req-1","domain":"example.com","state":"open"}`},
		{EgressOf(manager.EgressChange{Network: manager.Network{Egress: sandbox.Egress{Mode: egress.None, Enforced: true}}}, Agent), `{"mode":"none","enforced":true}`},
		{RunOf(manager.ExecResult{}), `{"exit_code":0}`},
	} {
		b, err := json.Marshal(c.what)
		if err != nil || string(b) != c.want {
			t.Errorf("%s, %v; want %s", b, err, c.want)
		}
	}
}

func TestALineSaysWhatMatters(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct{ got, want string }{
		{SandboxLine(sandbox.Sandbox{Name: "box", State: sandbox.Running, From: "base:one", Egress: egress.Agent, Address: "10.0.0.2", ExpiresAt: at, Labels: map[string]string{"a": "1"}}),
			"box: running, from base:one, egress agent, address 10.0.0.2, until 2026-01-02 03:04:05 UTC, labels map[a:1]"},
		{SandboxLine(sandbox.Sandbox{Name: "box", State: sandbox.Stopped, From: "base", Egress: egress.None}), "box: stopped, from base, egress none"},
		{RequestLine(ledger.Request{ID: "req-1", Subject: "example.com", State: ledger.RequestOpen}), "req-1: a human is asked about example.com; go on with other work meanwhile"},
		{RequestLine(ledger.Request{ID: "req-1", Subject: "example.com", State: ledger.RequestDenied, Answer: "use the mirror"}), "req-1: example.com was denied by a human: use the mirror; do without it"},
		{Reached(manager.Approved{Request: ledger.Request{}, Names: []string{"box"}}, Page), "box"},
		{Reached(manager.Approved{Request: ledger.Request{Scope: policy.Once}, Names: []string{"box"}}, Terminal), "one connection of sandbox box"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	if line := CheckpointLine("box", sandbox.Checkpoint{Label: "one", CreatedAt: at, Size: 1 << 20, Description: "all"}); !strings.HasPrefix(line, "box:one, 2026-01-02 03:04:05 UTC, ") || !strings.HasSuffix(line, " old, 1MiB of its own: all") {
		t.Errorf("%q", line)
	}
}

func TestTimesForPeopleAreShort(t *testing.T) {
	now := time.Now()
	for d, want := range map[time.Duration]string{
		24*time.Hour - 2*time.Second: "in 24h", time.Hour + 40*time.Minute: "in 2h", 7*24*time.Hour - time.Minute: "in 7d", 30*time.Second + 900*time.Millisecond: "in 31s",
		59*time.Minute + 50*time.Second: "in 1h", -time.Second: "over",
	} {
		if got := Left(now.Add(d)); got != want {
			t.Errorf("%s from now is %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{3*time.Minute + 50*time.Second: "3m ago", 0: "0s ago", 47 * time.Hour: "47h ago", 49 * time.Hour: "2d ago"} {
		if got := Past(now.Add(-d)); got != want {
			t.Errorf("%s ago is %q, want %q", d, got, want)
		}
	}
	if Past(time.Time{})+Left(time.Time{}) != "" {
		t.Error("never is some time")
	}
}
