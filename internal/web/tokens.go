package web

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"pixels/internal/view"
	"pixels/sandbox/manager"
)

// tokenRow is a token as it is shown.
type tokenRow struct {
	manager.TokenUse
	State string
	Depth int // below the token at the top of its tree
	Last  string
	Caps  string
}

type tokensPage struct {
	page
	Tokens []tokenRow
}

func (s *Server) showTokens(w http.ResponseWriter, r *http.Request, _ *session) {
	p := tokensPage{page: page{Title: "Tokens", Open: s.open()}}
	all, err := s.human.Tokens(r.Context())
	if err != nil {
		s.failed(w, &p.page, err)
		return
	}
	for _, t := range all {
		if !t.Live && t.Sandboxes == 0 {
			continue
		}
		shown := view.TokenOf(t)
		p.Tokens = append(p.Tokens, tokenRow{t, shown.State, strings.Count(t.Name, "/"), t.Name[strings.LastIndex(t.Name, "/")+1:], shown.May()})
	}
	name := "tokens.html"
	if r.FormValue("part") != "" {
		name = "tokens"
	}
	s.render(w, http.StatusOK, name, p)
}

func (s *Server) revokeToken(w http.ResponseWriter, r *http.Request, _ *session) {
	name := r.PostFormValue("name")
	done, err := s.human.RevokeToken(r.Context(), name, r.URL.Path == "/tokens/destroy")
	said := fmt.Sprintf("%s has ended, with all below it.", name)
	if len(done.Destroyed) > 0 {
		said += fmt.Sprintf(" Destroyed: %s.", strings.Join(done.Destroyed, ", "))
	}
	for box, failed := range done.Failed {
		err = errors.Join(err, fmt.Errorf("%s: %w", box, failed))
	}
	s.answer(w, said, err)
}
