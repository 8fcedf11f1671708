package web

import (
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/approver"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// page is what every page has.
type page struct {
	Title string
	Open  int    // requests
	Wrong string // what went wrong
}

// card is a request as it is shown.
type card struct {
	manager.Look
	Level policy.Approval // what an approval wants
	Lasts []choice        // how long a grant may last
	Seen  string          // names what is shown
}

// choice is one of several lengths of time.
type choice struct {
	Value, Text string
	Chosen      bool
}

type requestsPage struct {
	page
	Cards   []card
	Decided []ledger.Request
	Only    bool // one request, by a link to it
}

// shownDecided is how many requests that were decided are shown, and shownRequests how many that are open.
const (
	shownDecided  = 15
	shownRequests = 1000
)

func (s *Server) showRequests(w http.ResponseWriter, r *http.Request, _ *session) {
	p := requestsPage{page: page{Title: "Requests"}}
	open, err := s.human.Requests("", shownRequests, ledger.RequestOpen, ledger.RequestGranting)
	if err == nil {
		p.Open = len(open)
		p.Cards, err = s.cards(r, open)
	}
	if err == nil {
		p.Decided, err = s.human.Requests("", shownDecided, ledger.RequestGranted, ledger.RequestDenied, ledger.RequestExpired, ledger.RequestWithdrawn, ledger.RequestRevoked)
	}
	if err != nil {
		s.failed(w, &p.page, err)
		return
	}
	slices.Reverse(p.Decided) // the latest first
	name := "requests.html"
	if r.FormValue("part") != "" {
		name = "cards"
	}
	s.render(w, http.StatusOK, name, p)
}

func (s *Server) showRequest(w http.ResponseWriter, r *http.Request, _ *session) {
	p := requestsPage{page: page{Title: "Request", Open: s.open()}, Only: true}
	one, err := s.human.Request(r.PathValue("id"))
	if errors.Is(err, ledger.ErrNoRequest) {
		p.Wrong = "There is no such request, or its record was pruned."
		s.render(w, http.StatusNotFound, "requests.html", p)
		return
	}
	if err == nil {
		if one.State.Ended() {
			p.Decided = []ledger.Request{one}
		} else {
			p.Cards, err = s.cards(r, []ledger.Request{one})
		}
	}
	if err != nil {
		s.failed(w, &p.page, err)
		return
	}
	s.render(w, http.StatusOK, "requests.html", p)
}

// cards are requests as they are shown.
func (s *Server) cards(r *http.Request, open []ledger.Request) ([]card, error) {
	looks, err := s.human.Looks(r.Context(), open)
	if err != nil {
		return nil, err
	}
	lasts := map[string][]choice{}
	out := make([]card, 0, len(looks))
	for _, each := range looks {
		key := fmt.Sprint(each.Owner, " ", each.Wanted)
		if lasts[key] == nil {
			lasts[key] = s.lasts(each.Request)
		}
		_, seen := ledger.ParseHandle(each.Handle)
		out = append(out, card{Look: each, Level: s.human.Approval(), Lasts: lasts[key], Seen: seen})
	}
	return out, nil
}

// lasts are the lengths that a grant may have, the usual one or the one that the agent wants chosen.
func (s *Server) lasts(r ledger.Request) (out []choice) {
	chosen, longest := s.human.GrantFor(r)
	all := []time.Duration{15 * time.Minute, time.Hour, 8 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour}
	there := false
	for _, d := range all {
		there = there || d == chosen
	}
	if !there {
		all = append([]time.Duration{chosen}, all...)
	}
	for _, d := range all {
		if d <= longest {
			out = append(out, choice{d.String(), units.Duration(d), d == chosen})
		}
	}
	return out
}

// approval is what a form asks for, and the rule of its request.
func (s *Server) approval(r *http.Request) (a manager.Approval, rule string, err error) {
	lasting, err := time.ParseDuration(r.PostFormValue("for"))
	if err != nil {
		return a, "", fmt.Errorf("how long it is to last is %w", sandbox.ErrInvalid)
	}
	request, err := s.human.Request(r.PathValue("id"))
	return manager.Approval{ID: r.PathValue("id"), Seen: r.PostFormValue("seen"), By: by(r), Scope: policy.Scope(r.PostFormValue("scope")), For: lasting, Answer: r.PostFormValue("answer")}, request.Subject, err
}

// errHeavy means that an approval is for much, and must be asked for once more by that.
var errHeavy = errors.New("press again to approve")

// by says who decides here: the token has no name, but where they sit is known.
func by(r *http.Request) string { return "web, from " + peer(r) }

// weighed refuses an approval that is for much, unless the one who asks for it was told for what.
func (s *Server) weighed(r *http.Request, a manager.Approval) error {
	heavy, err := s.human.Weight(r.Context(), a)
	if err != nil || heavy == "" || r.PostFormValue("sure") == heavy {
		return err
	}
	return fmt.Errorf("%w %s", errHeavy, heavy)
}

// proven is a manager for an approval, when the human proves to be one as the policy asks.
func (s *Server) proven(r *http.Request, mine *session, a manager.Approval, rule string) (*manager.Human, error) {
	if s.human.Approval() == policy.Passkey {
		if err := s.signed(r, mine, a, rule); err != nil {
			return nil, err
		}
		return s.human.Proven(), nil
	}
	var m *manager.Human
	err := s.tries.check(r, mine, func() (err error) {
		m, err = s.human.Prove(r.PostFormValue("passphrase"))
		return err
	})
	return m, err
}

func (s *Server) approve(w http.ResponseWriter, r *http.Request, mine *session) {
	a, rule, err := s.approval(r)
	var got manager.Approved
	if err == nil {
		err = s.weighed(r, a)
	}
	if err == nil {
		var m *manager.Human
		if m, err = s.proven(r, mine, a, rule); err == nil {
			got, err = m.Approve(r.Context(), a)
		}
	}
	said := ""
	if err == nil {
		said = fmt.Sprintf("%s is in reach of %s until %s.", got.Subject, view.Reached(got, view.Page), view.Moment(got.Until))
		for _, d := range got.Standing {
			said += fmt.Sprintf(" Not %s: that stays denied (by %s).", d.Rule, d.From)
		}
	}
	s.answer(w, said, err)
}

func (s *Server) deny(w http.ResponseWriter, r *http.Request, mine *session) {
	got, err := s.human.Refuse(r.Context(), manager.Approval{ID: r.PathValue("id"), Seen: r.PostFormValue("seen"), By: by(r), Answer: r.PostFormValue("answer")})
	s.answer(w, fmt.Sprintf("%s is denied to %s.", got.Subject, got.Sandbox), err)
}

// answer says in a line what came of a form.
func (s *Server) answer(w http.ResponseWriter, said string, err error) {
	status := http.StatusOK
	if err != nil {
		if status, said = statusOf(err), view.Error(err, view.Page); status == http.StatusInternalServerError {
			s.log(err)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprint(w, said)
}

// statusOf is the status of an answer that is an error.
func statusOf(err error) int {
	is := func(errs ...error) bool {
		return slices.ContainsFunc(errs, func(e error) bool { return errors.Is(err, e) })
	}
	switch {
	case is(errHeavy):
		return http.StatusPreconditionRequired
	case is(ledger.ErrDecided, ledger.ErrChanged):
		return http.StatusConflict
	case is(approver.ErrProof, approver.ErrNoProofYet, approver.ErrProofLost):
		return http.StatusForbidden
	case is(ledger.ErrNoRequest, ledger.ErrAuthorization, sandbox.ErrNotFound):
		return http.StatusNotFound
	case is(sandbox.ErrInvalid, sandbox.ErrDenied, sandbox.ErrState, sandbox.ErrExists):
		return http.StatusUnprocessableEntity
	case is(sandbox.ErrUnavailable):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// failed shows that a page can't be had.
func (s *Server) failed(w http.ResponseWriter, p *page, err error) {
	s.log(err)
	p.Wrong = view.Error(err, view.Page)
	s.render(w, statusOf(err), "error.html", p)
}

// functions are what the pages are made with.
var functions = template.FuncMap{
	"ago": func(t time.Time) string { return view.Ago(t) + " ago" },
	"left": func(t time.Time) string {
		d := time.Until(t)
		if d <= 0 {
			return "over"
		}
		if d > time.Minute {
			d = d.Truncate(time.Minute)
		}
		return units.Duration(max(d.Truncate(time.Second), time.Second))
	},
	"clock":   view.Moment,
	"brief":   func(text string) string { return text[:min(len(text), 6)] },
	"age":     view.Ago,
	"unix":    func(t time.Time) int64 { return t.UnixMilli() },
	"lasting": func(s ledger.Seconds) string { return units.Duration(s.Duration()) },
	"join":    func(list []string) string { return strings.Join(list, ", ") },
	"took":    func(d time.Duration) string { return d.String() },
}
