package web

import (
	"fmt"
	"net/http"
	"strings"

	"pixels/egress"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

type grantsPage struct {
	page
	Grants   []manager.Standing
	ByPolicy []manager.Allowance
}

func (s *Server) showGrants(w http.ResponseWriter, r *http.Request, _ *session) {
	p := grantsPage{page: page{Title: "Grants", Open: s.open()}}
	var err error
	if p.Grants, err = s.human.Grants(r.Context(), "", ""); err == nil {
		p.ByPolicy, err = s.human.Allowances("")
	}
	if err != nil {
		s.failed(w, &p.page, err)
		return
	}
	name := "grants.html"
	if r.FormValue("part") != "" {
		name = "grants"
	}
	s.render(w, http.StatusOK, name, p)
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request, _ *session) {
	rule, err := egress.ParseRule(r.PostFormValue("rule"))
	if err != nil {
		s.answer(w, "", fmt.Errorf("the rule is %w: %w", sandbox.ErrInvalid, err))
		return
	}
	var names []string
	if id := r.PostFormValue("request"); id != "" {
		_, names, err = s.human.RevokeRequest(r.Context(), id, by(r))
	} else {
		names, err = s.human.RevokeGrant(r.Context(), r.PostFormValue("owner"), rule, r.PostFormValue("from"))
	}
	s.answer(w, fmt.Sprintf("%s is taken back from %s.", rule, strings.Join(names, ", ")), err)
}
