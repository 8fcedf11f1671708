package manager_test

import (
	"errors"
	"strings"
	"testing"

	"pixels/internal/view"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

func TestAHintIsBoundedAndHarmless(t *testing.T) {
	var denied []sandbox.Denial
	for range 64 {
		denied = append(denied, sandbox.Denial{Domain: strings.Repeat("a", 10_000) + ".example.com", Port: 443, Reason: "\x1b[2J" + strings.Repeat("x", 10_000)})
	}
	if hint := view.Denied(denied, view.Agent); len(hint) > 2200 || strings.Contains(hint, "\x1b") || !strings.HasSuffix(hint, "allow_domain asks for a domain") {
		t.Errorf("%d bytes", len(hint))
	}
}

func TestTextsComeInHarmless(t *testing.T) {
	a := newAsked(t, "[egress]\nallow = [\"free.example.com\"]")
	if _, err := a.agent.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "l", Labels: map[string]string{"k": "a\x1b[2J"}}); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("a label: %v", err)
	}
	c, err := a.agent.CreateCheckpoint(t.Context(), manager.Agent("me"), "box", "two", "a\x1b[2J\u202eb\nc")
	if err != nil || c.Description != "a[2Jb c" {
		t.Errorf("a description: %+v, %v", c, err)
	}
	if _, err := a.agent.Allow(t.Context(), manager.Agent("me"), manager.AllowRequest{Name: "box", Domains: []string{"free.example.com"}, Reason: "a\x1b]0;x\x07\u202eb"}); err != nil {
		t.Fatal(err)
	}
	box, err := a.Get(t.Context(), "me", "box")
	if err != nil || len(box.Rules) != 1 || box.Rules[0].From != "allow_domain: a]0;xb" {
		t.Errorf("a reason: %+v, %v", box.Rules, err)
	}
}
