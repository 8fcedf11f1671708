package view

import (
	"fmt"

	"pixels/internal/plain"
	"pixels/internal/units"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// Question is a request as JSON shows it to a human.
type Question struct {
	ledger.Request
	Handle string `json:"handle,omitempty"` // to answer it as it is shown
	For    string `json:"for,omitempty"`    // how long its grant lasts unless the answer says otherwise
}

// QuestionOf is what of a request is shown.
func QuestionOf(m *manager.Manager, r ledger.Request) Question {
	if r.State.Ended() {
		return Question{Request: r}
	}
	usual, _ := m.GrantFor(r)
	return Question{r, m.Handle(r), units.Duration(usual)}
}

// mostQuestions is how many are shown at once.
const mostQuestions = 1000

// Questions are the requests of an owner, of all when it is empty, the oldest first: those that are open, or all.
func Questions(m *manager.Manager, owner string, all bool) ([]Question, error) {
	states := []ledger.RequestState{ledger.RequestOpen, ledger.RequestGranting}
	if all {
		states = nil
	}
	list, err := m.Requests(owner, mostQuestions, states...)
	out := []Question{}
	for _, r := range list {
		out = append(out, QuestionOf(m, r))
	}
	return out, err
}

// Name is what answers it as it is shown; its ID where it is answered.
func (q Question) Name() string {
	if q.Handle == "" {
		return q.ID
	}
	return q.Handle
}

// Lasting says how long a grant would last, or until when it does.
func (q Question) Lasting() string {
	switch {
	case !q.Until.IsZero():
		return "until " + Moment(q.Until)
	case q.State.Ended():
		return "-"
	}
	// A grant lasts no longer than the agent wants.
	if wanted := units.Duration(q.Wanted.Duration()); q.Wanted > 0 && wanted != q.For {
		return q.For + " (the agent wants " + wanted + ")"
	}
	return q.For
}

// WhoAsks names the sandboxes that asked.
func WhoAsks(r ledger.Request) string {
	return r.Owner + "/" + plain.Some(r.Names(), SomeNames)
}

// Why says what the one who asks says; none of it is more than a claim.
func Why(r ledger.Request) string {
	switch {
	case r.Reason != "":
		return fmt.Sprintf("the agent says: %q", r.Reason)
	case r.Process != "":
		return fmt.Sprintf("a connection, as the sandbox says of process %q", r.Process)
	case r.Source == ledger.ByAgent:
		return "the agent asks"
	}
	return "a connection that was blocked"
}

// Reached says what a domain is in reach of by an approval.
func Reached(r manager.Approved, to Audience) string {
	const most = 5
	one := r.Names[0]
	if to != Page { // which shows names as such
		one = "sandbox " + one
	}
	switch n := len(r.Names); {
	case r.Scope == policy.Once:
		return "one connection of " + one
	case n == 1:
		return one
	default:
		return fmt.Sprintf("%d sandboxes (%s)", n, plain.Some(r.Names, most))
	}
}

// SomeNames are as many of several as a line has room for.
const SomeNames = 3
