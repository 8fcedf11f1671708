package sandbox

import (
	"context"
	"errors"
	"fmt"

	"pixels/egress"
	"pixels/internal/units"
	"pixels/policy"
)

// ErrNotHere means that a request is none that the human at an MCP client may decide about there.
var ErrNotHere = errors.New("not to be decided in an MCP client")

// Question is a request as it is put to the human at an MCP client, with a link to it on the page, if the policy says where
// that is. may tells whether a yes there would grant it.
func (m *Manager) Question(r policy.Request) (question, link string, may bool) {
	question = fmt.Sprintf("Sandbox %s wants to reach %s.", r.Sandbox, r.Rule)
	if r.Reason != "" {
		question += fmt.Sprintf(" The agent says: %q.", r.Reason)
	}
	if may = m.elicitable(r); may {
		usual, _ := m.GrantFor(r)
		question += fmt.Sprintf(" Allow it for %s?", units.Duration(usual))
	}
	return question, m.gate.policy.Now().Link(r.ID), may
}

// elicitable tells whether a client's yes may grant a request: one for exact domains, while the policy has no stronger
// proof of who approves. A client's accept isn't always a person: hooks answer, too.
func (m *Manager) elicitable(r policy.Request) bool {
	rule, err := egress.ParseDomainRule(r.Rule)
	return err == nil && !rule.Below && m.gate.policy.Now().Elicits(r.Owner)
}

// Confirmed grants a request that the human at an MCP client said yes to: to the sandbox that asked, for a time. See
// Question for what it refuses, with ErrNotHere.
func (m *Manager) Confirmed(ctx context.Context, id, seen string) (Approved, error) {
	r, err := m.gate.store.Request(id)
	if err != nil {
		return Approved{Request: r}, err
	}
	if !m.elicitable(r) {
		return Approved{Request: r}, fmt.Errorf("request %s is %w: decide with `pixels-mcp requests`, or on the page", id, ErrNotHere)
	}
	return m.AsHuman("elicitation").Approve(ctx, Approval{ID: id, Seen: seen, By: "elicitation, at the client of " + r.Owner})
}
