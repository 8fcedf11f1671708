package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/oauth"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
)

// onwardHeader has the address where the browser is to go after an answer.
const onwardHeader = "X-Pixels-Onward"

// mode is an egress mode that a token may allow.
type mode struct {
	Name, Text string
	Chosen     bool
}

// connectPage asks whether a client gets a token, and what that allows.
type connectPage struct {
	page
	Asked  ledger.Authorization
	Client string   // its name
	From   string   // the site that describes it; empty where it registered itself
	To     string   // where the answer goes
	Here   bool     // which is this machine
	Name   string   // that the token gets
	Again  []string // names of tokens that clients have
	Modes  []mode
	Lasts  []choice
}

var modeTexts = map[egress.Mode]string{
	egress.None: "no network", egress.Agent: "what agents need: models and package registries", egress.Allowlist: "the domains that you approve", egress.Unrestricted: "everything",
}

func (s *Server) showConnect(w http.ResponseWriter, r *http.Request, _ *session) {
	p := connectPage{page: page{Title: "Connect", Open: s.open()}}
	a, err := s.human.Asked(r.PathValue("id"))
	if errors.Is(err, ledger.ErrAuthorization) {
		p.Wrong = "This was answered already, or its time is over. Begin again in the client."
		s.render(w, http.StatusNotFound, "error.html", &p.page)
		return
	}
	tokens, err2 := s.human.Tokens(r.Context())
	if err = errors.Join(err, err2); err != nil {
		s.failed(w, &p.page, err)
		return
	}
	p.Asked, p.Client, p.Name = a, a.ClientName, nameFor(a.ClientName)
	if p.Client == "" {
		p.Client = "A client without a name"
	}
	if u, err := url.Parse(a.Client); err == nil && u.Scheme == "https" {
		p.From = u.Host
	}
	if u, err := url.Parse(a.Redirect); err == nil {
		if p.To = u.Scheme + "://" + u.Host; u.Host == "" {
			p.To = u.Scheme + ":"
		}
		name := u.Hostname()
		p.Here = name == "localhost" || strings.HasPrefix(name, "127.") || name == "::1"
	}
	taken := false
	for _, t := range tokens {
		if t.Client != "" && t.Revoked.IsZero() {
			p.Again = append(p.Again, t.Name)
		} else if t.Name == p.Name {
			taken = true
		}
	}
	if taken {
		p.Name += "-2"
	}
	for _, m := range egress.Modes {
		p.Modes = append(p.Modes, mode{string(m), modeTexts[m], m == egress.None || m == egress.Agent})
	}
	for _, d := range []time.Duration{24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 90 * 24 * time.Hour} {
		p.Lasts = append(p.Lasts, choice{d.String(), units.Duration(d), d == 30*24*time.Hour})
	}
	s.render(w, http.StatusOK, "connect.html", p)
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// nameFor is a token's name for a client.
func nameFor(client string) string {
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(client), "-"), "-0123456789")
	if name = strings.Trim(name[:min(len(name), 24)], "-"); name == "" {
		return "client"
	}
	return name
}

// chosen is the token that a form describes.
func chosen(r *http.Request) (t ledger.Token, err error) {
	t.Name = strings.TrimSpace(r.PostFormValue("name"))
	caps := view.Caps{MaxLease: strings.TrimSpace(r.PostFormValue("lease")), Memory: strings.TrimSpace(r.PostFormValue("memory")), Egress: &[]string{}}
	*caps.Egress = append(*caps.Egress, r.PostForm["egress"]...)
	for field, to := range map[string]**int64{"sandboxes": &caps.Sandboxes, "cpu": &caps.CPU} {
		if text := strings.TrimSpace(r.PostFormValue(field)); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return t, fault.Errorf(fault.Invalid, fault.Hint{}, "%s: give a number", field)
			}
			*to = &n
		}
	}
	if t.Limits, err = caps.Limits(); err != nil {
		return t, fault.Errorf(fault.Invalid, fault.Hint{}, "%v", err)
	}
	if r.PostFormValue("read_only") != "" {
		t.Limits.Tools = &policy.ReadOnly
	}
	lasts, err := time.ParseDuration(r.PostFormValue("for"))
	if err != nil || lasts <= 0 {
		return t, fault.Errorf(fault.Invalid, fault.Hint{}, "say how long the client may have the token")
	}
	t.Expires = time.Now().Add(lasts)
	return t, nil
}

func (s *Server) connect(w http.ResponseWriter, r *http.Request, _ *session) {
	t, err := chosen(r)
	if err != nil {
		s.answer(w, "", err)
		return
	}
	a, code, err := s.human.Connect(r.Context(), r.PathValue("id"), t)
	s.onward(w, a, oauth.Response{Code: code}, fmt.Sprintf("%s is connected as %s. You can go back to it.", a.ClientName, t.Name), err)
}

func (s *Server) decline(w http.ResponseWriter, r *http.Request, _ *session) {
	a, err := s.human.Decline(r.PathValue("id"))
	s.onward(w, a, oauth.Response{Error: "access_denied", Description: "the human said no"}, fmt.Sprintf("%s gets no token.", a.ClientName), err)
}

// onward sends the browser to the client with a response.
func (s *Server) onward(w http.ResponseWriter, a ledger.Authorization, response oauth.Response, said string, err error) {
	if err == nil {
		var to string
		if to, err = oauth.Back(a, response); err == nil {
			w.Header().Set(onwardHeader, to)
		}
	}
	s.answer(w, said, err)
}
