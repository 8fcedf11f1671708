package server

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"pixels/policy"
	"pixels/policy/ledger"
)

// look asks as a browser does, and follows nothing.
func (s *served) look(t *testing.T, path string) (status int, to *url.URL, text string) {
	t.Helper()
	answer, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, _ := io.ReadAll(answer.Body)
	to, _ = answer.Location()
	return answer.StatusCode, to, string(b)
}

// A browser is sent nowhere that the client did not register, and a wish that lacks something gets no further than to its client.
func TestBadWishes(t *testing.T) {
	s := serveHTTP(t)
	client := s.register(t)
	for what, path := range map[string]string{
		"no client":           wish(""),
		"an unknown client":   wish("nobody"),
		"another site":        wish(client, "redirect_uri", "https://evil.example/back"),
		"another path":        wish(client, "redirect_uri", back+"/more"),
		"no address":          wish(client, "redirect_uri", ""),
		"a disguised address": wish(client, "redirect_uri", strings.Replace(back, "/back", "/%62ack", 1)),
		"a user in it":        wish(client, "redirect_uri", "http://127.0.0.1:4321@evil.example/back"),
		"a name like it":      wish(client, "redirect_uri", "http://127.0.0.1.evil.example/back"),
		"a document at home":  wish("https://127.0.0.1:1/client"),
		"a long state":        wish(client, "state", strings.Repeat("x", 5000)),
	} {
		if status, to, text := s.look(t, path); status != http.StatusBadRequest || to != nil || text == "" {
			t.Errorf("%s: %d, to %v: %s", what, status, to, text)
		}
	}
	for what, path := range map[string]string{
		"no PKCE": wish(client, "code_challenge", ""), "plain PKCE": wish(client, "code_challenge_method", "plain"), "PKCE without a method": wish(client, "code_challenge_method", ""),
		"a short challenge": wish(client, "code_challenge", "short"), "no code": wish(client, "response_type", "token"), "no type": wish(client, "response_type", ""),
		"an ID token": wish(client, "response_type", "id_token"), "another server's token": wish(client, "resource", "https://other.example/mcp"), "in a fragment": wish(client, "response_mode", "fragment"),
		"by a form": wish(client, "response_mode", "form_post"), "without a human": wish(client, "prompt", "none"), "a request object": wish(client, "request", "x.y.z"),
	} {
		status, to, _ := s.look(t, path)
		if status != http.StatusFound || to == nil || !strings.HasPrefix(to.String(), back+"?") || to.Query().Get("error") == "" || to.Query().Get("state") != "a state" || to.Query().Get("iss") != s.url {
			t.Errorf("%s: %d, to %v", what, status, to)
		}
	}
	// What is good still: another port of the browser's machine, a scope that is not ours, an ID token of somebody's.
	for _, path := range []string{
		wish(client), wish(client, "redirect_uri", "http://127.0.0.1:9/back"), wish(client, "scope", "openid profile mcp"), wish(client, "id_token_hint", "x.y.z"), wish(client, "resource", s.url+"/mcp"), wish(client, "resource", s.url+"/"),
	} {
		if status, to, text := s.look(t, path); status != http.StatusFound || !strings.HasPrefix(to.String(), s.url+"/connect/") {
			t.Errorf("%s: %d, to %v: %s", path, status, to, text)
		}
	}
}

// A code serves its client alone, with its proof, at once; a refresh token its client alone.
func TestBadExchanges(t *testing.T) {
	s := serveHTTP(t)
	client, other := s.register(t), s.register(t)
	good := func() map[string]string {
		return map[string]string{"grant_type": "authorization_code", "code": s.code(t, client, "helper", policy.Limits{}), "client_id": client, "redirect_uri": back, "code_verifier": verifier}
	}
	try := func(fields map[string]string, headers ...string) (int, string) {
		form := url.Values{}
		for name, value := range fields {
			if value != "" {
				form.Set(name, value)
			}
		}
		answer := s.send(t, "POST", "/oauth/token", "", form.Encode(), append([]string{"Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
		said := parse(t, answer)
		text, _ := said["error"].(string)
		return answer.StatusCode, text
	}
	for what, one := range map[string]struct{ field, value, want string }{
		"another's code":         {"client_id", other, "invalid_grant"},
		"no client":              {"client_id", "", "invalid_request"},
		"an unknown client":      {"client_id", "nobody", "invalid_client"},
		"no proof":               {"code_verifier", "", "invalid_request"},
		"a wrong proof":          {"code_verifier", strings.Repeat("x", 50), "invalid_grant"},
		"the challenge as proof": {"code_verifier", challengeOf(verifier), "invalid_grant"},
		"another address":        {"redirect_uri", "http://127.0.0.1:9/back", "invalid_grant"},
		"no code":                {"code", "", "invalid_request"},
		"a code of nobody":       {"code", "x", "invalid_grant"},
		"another kind":           {"grant_type", "client_credentials", "unsupported_grant_type"},
		"a password":             {"grant_type", "password", "unsupported_grant_type"},
		"no kind":                {"grant_type", "", "invalid_request"},
		"another server":         {"resource", "https://other.example/mcp", "invalid_target"},
	} {
		fields := good()
		fields[one.field] = one.value
		if status, said := try(fields); status != 400 && status != 401 || said != one.want {
			t.Errorf("%s: %d %s", what, status, said)
		}
	}
	if status, said := try(good(), "Authorization", "Basic Y2xpZW50OnNlY3JldA=="); status != 401 || said != "invalid_client" {
		t.Errorf("a secret: %d %s", status, said)
	}
	fields := good()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {fields["code"]}, "client_id": {client, other}, "redirect_uri": {back}, "code_verifier": {verifier}}
	if answer := s.send(t, "POST", "/oauth/token", "", form.Encode(), "Content-Type", "application/x-www-form-urlencoded"); answer.StatusCode != 400 {
		t.Errorf("two clients: %s", answer.Status)
	}
	delete(fields, "code_verifier")
	query := url.Values{"grant_type": {"authorization_code"}, "code": {fields["code"]}, "client_id": {client}, "redirect_uri": {back}, "code_verifier": {verifier}}
	if answer := s.send(t, "POST", "/oauth/token?"+query.Encode(), "", ""); answer.StatusCode != 400 {
		t.Errorf("secrets in the address: %s", answer.Status)
	}

	access, refresh := s.exchange(t, client, s.code(t, client, "helper", policy.Limits{}))
	for what, one := range map[string]struct {
		want   string
		fields map[string]string
	}{
		"another's refresh token": {"invalid_grant", map[string]string{"client_id": other, "refresh_token": refresh}},
		"none":                    {"invalid_request", map[string]string{"client_id": client}},
		"nobody's":                {"invalid_grant", map[string]string{"client_id": client, "refresh_token": "x"}},
		"the access token":        {"invalid_grant", map[string]string{"client_id": client, "refresh_token": access}},
	} {
		one.fields["grant_type"] = "refresh_token"
		if status, said := try(one.fields); status != 400 || said != one.want {
			t.Errorf("%s: %d %s", what, status, said)
		}
	}
	for what, fields := range map[string][]string{"another client": {"token", refresh, "client_id", other}, "nobody's token": {"token", "x", "client_id", client}} {
		if answer := s.form(t, "/oauth/revoke", fields...); answer.StatusCode != 200 {
			t.Errorf("%s signs out: %s", what, answer.Status)
		}
	}
	if answer := s.send(t, "POST", mcpPath, access, hello); answer.StatusCode != 200 {
		t.Errorf("others ended it: %s", answer.Status)
	}
	// A refresh token is no access token, and a token that a human revokes is the end of both.
	if answer := s.send(t, "POST", mcpPath, refresh, hello); answer.StatusCode != 401 {
		t.Errorf("a refresh token: %s", answer.Status)
	}
	if _, err := s.human.RevokeToken(t.Context(), "helper", false); err != nil {
		t.Fatal(err)
	}
	if status, said := try(map[string]string{"grant_type": "refresh_token", "client_id": client, "refresh_token": refresh}); status != 400 || said != "invalid_grant" {
		t.Errorf("%d %s", status, said)
	}
	if answer := s.send(t, "POST", mcpPath, access, hello); answer.StatusCode != 401 {
		t.Errorf("after it was revoked: %s", answer.Status)
	}
}

// A human's no gives nothing, a client takes no name of another's, and nobody registers what is dangerous.
func TestAClientIsRefused(t *testing.T) {
	s := serveHTTP(t)
	client := s.register(t)
	id := strings.TrimPrefix(s.sent(t, wish(client)).Path, "/connect/")
	if _, err := s.human.Decline(id); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.human.Connect(t.Context(), id, ledger.Token{Name: "helper", Expires: time.Now().Add(time.Hour)}); err == nil {
		t.Error("a no became a yes")
	}
	s.token(t, "ci", policy.Limits{}) // a human's own
	for _, name := range []string{"ci", "root", "ci/below", "Bad Name"} {
		id := strings.TrimPrefix(s.sent(t, wish(client)).Path, "/connect/")
		if _, code, err := s.human.Connect(t.Context(), id, ledger.Token{Name: name, Expires: time.Now().Add(time.Hour)}); err == nil || code != "" {
			t.Errorf("a client has the name %s", name)
		}
	}
	for _, body := range []string{"", "[]", `{}`, `{"redirect_uris":[]}`, `{"redirect_uris":["javascript:alert(1)"]}`, `{"redirect_uris":["http://client.example/"]}`, `{"redirect_uris":["` + back + `"],"client_name":"` + strings.Repeat("x", 20<<10) + `"}`} {
		if answer := s.send(t, "POST", "/oauth/register", "", body); answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%.50s: %s", body, answer.Status)
		}
	}
	for range 600 {
		if answer := s.send(t, "POST", "/oauth/register", "", `{"redirect_uris":["`+back+`"]}`); answer.StatusCode == http.StatusTooManyRequests {
			return
		}
	}
	t.Error("anybody can register any number of clients")
}
