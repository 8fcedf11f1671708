package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/policy"
	"pixels/policy/ledger"
)

// ErrNotHere means that a request is none that the human at an MCP client may decide about there.
var ErrNotHere = errors.New("not to be decided in an MCP client")

// Choice is an answer that the human at an MCP client picks from a list, in the words of the list.
type Choice string

// The choices. Every other word decides nothing.
const (
	ChooseDeny  Choice = "deny"
	ChooseOnce  Choice = "this connection"
	ChooseHour  Choice = "1 hour"
	ChooseShift Choice = "8 hours"
)

// lengths are how long a choice is for.
var lengths = map[Choice]time.Duration{ChooseHour: time.Hour, ChooseShift: 8 * time.Hour}

// Question is a request as it is put to the human at an MCP client.
type Question struct {
	ID      string // names what is shown: it is another one once that has changed
	Text    string
	Choices []Choice // none where it is not for the human there to decide
	Link    string   // to it on the page, if the policy says where that is
}

// Question puts a request into words. A client's yes may grant one for exact domains, while the policy has no stronger proof
// of who approves, and none that is for much: a client's answer isn't always a person's, for hooks answer, too.
func (m *Manager) Question(ctx context.Context, r ledger.Request) Question {
	c := m.begin(Caller{})
	q := Question{ID: r.Handle(c.usual(r)), Link: c.set.Link(r.ID)}
	names := r.Names()
	q.Text = fmt.Sprintf("Sandbox %s wants to reach %s.", names[0], r.Subject)
	if len(names) > 1 {
		q.Text = fmt.Sprintf("Sandboxes %s want to reach %s.", strings.Join(names, ", "), r.Subject)
	}
	rule, err := egress.ParseDomainRule(r.Subject)
	if err == nil && egress.Alike(rule.Domain) != "" {
		q.Text += " Careful: " + egress.Alike(rule.Domain) + "."
	}
	if r.Reason != "" {
		q.Text += fmt.Sprintf(" The agent says: %q.", r.Reason)
	}
	if err != nil || rule.Wide() != "" || !c.set.Elicits(r.Owner) {
		return q
	}
	if heavy, err := c.weight(ctx, Approval{ID: r.ID}); err != nil || heavy != "" {
		return q
	}
	q.Text += " May it?"
	_, longest := c.grantFor(r)
	for _, choice := range []Choice{ChooseDeny, ChooseOnce, ChooseHour, ChooseShift} {
		if lengths[choice] <= longest {
			q.Choices = append(q.Choices, choice)
		}
	}
	return q
}

// Chosen answers a request as the human at an MCP client chose. See Question for what it refuses, with ErrNotHere.
func (m *Manager) Chosen(ctx context.Context, r ledger.Request, q Question, c Choice) error {
	if !slices.Contains(q.Choices, c) || !m.gate.policy.Now().Elicits(r.Owner) {
		return fault.With(fmt.Errorf("request %s is %w", r.ID, ErrNotHere), fault.Hint{Action: fault.DecideElsewhere})
	}
	id, seen := ledger.ParseHandle(q.ID)
	a := Approval{ID: id, Seen: seen, By: "elicitation, at the client of " + r.Owner, For: lengths[c]}
	human := Door{m}.Human("elicitation")
	if c == ChooseDeny {
		_, err := human.Refuse(ctx, a)
		return err
	}
	if c == ChooseOnce {
		a.Scope = policy.Once
	}
	_, err := human.Approve(ctx, a)
	return err
}
