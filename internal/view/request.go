package view

import (
	"fmt"
	"time"

	"pixels/policy/ledger"
)

// Request is a request as JSON shows it to an agent.
type Request struct {
	ID     string              `json:"id" jsonschema:"give it to wait"`
	Domain string              `json:"domain"`
	State  ledger.RequestState `json:"state" jsonschema:"open, granted, denied, expired, revoked or withdrawn"`
	Answer string              `json:"answer,omitempty" jsonschema:"the human's words"`
	Until  string              `json:"until,omitempty" jsonschema:"end of the grant"`
}

// RequestOf is what of a request an agent is shown.
func RequestOf(r ledger.Request) Request {
	out := Request{ID: r.ID, Domain: r.Subject, State: r.State, Answer: r.Answer}
	if r.State == ledger.RequestGranting {
		out.State = ledger.RequestOpen // to whom waits it is the same
	}
	if !r.Until.IsZero() {
		out.Until = Clock(r.Until)
	}
	return out
}

// RequestLine says what became of a request, to an agent.
func RequestLine(r ledger.Request) string {
	answer := ""
	if r.Answer != "" {
		answer = ": " + r.Answer
	}
	switch r.State {
	case ledger.RequestGranted:
		if !r.Until.IsZero() && time.Now().After(r.Until) {
			return fmt.Sprintf("%s: %s was granted until %s, which is over%s; ask again if you need it", r.ID, r.Subject, Clock(r.Until), answer)
		}
		if r.Until.IsZero() {
			return fmt.Sprintf("%s: %s is granted%s", r.ID, r.Subject, answer)
		}
		return fmt.Sprintf("%s: %s is granted until %s%s", r.ID, r.Subject, Clock(r.Until), answer)
	case ledger.RequestDenied:
		return fmt.Sprintf("%s: %s was denied by a human%s; do without it", r.ID, r.Subject, answer)
	case ledger.RequestRevoked:
		return fmt.Sprintf("%s: %s was granted, and a human took that back; do without it, or ask again", r.ID, r.Subject)
	case ledger.RequestExpired, ledger.RequestWithdrawn:
		return fmt.Sprintf("%s: the request for %s is %s%s", r.ID, r.Subject, r.State, answer)
	}
	return fmt.Sprintf("%s: a human is asked about %s; go on with other work meanwhile", r.ID, r.Subject)
}
