package server

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pixels/internal/oauth"
	"pixels/policy"
	"pixels/policy/ledger"
)

const (
	verifier = "a-verifier-that-is-long-enough-for-the-rules-of-pkce-which-want-43"
	back     = "http://127.0.0.1:4321/back"
)

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// parse reads an answer in JSON.
func parse(t *testing.T, answer *http.Response) (out map[string]any) {
	t.Helper()
	b, _ := io.ReadAll(answer.Body)
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%s: %s", answer.Status, b)
	}
	return out
}

// form posts a form.
func (s *served) form(t *testing.T, path string, fields ...string) *http.Response {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return s.send(t, "POST", path, "", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

// wish is what a client asks for; fields are other than usual.
func wish(client string, fields ...string) string {
	form := url.Values{"client_id": {client}, "redirect_uri": {back}, "response_type": {"code"}, "state": {"a state"}, "code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}}
	for i := 0; i < len(fields); i += 2 {
		if form.Set(fields[i], fields[i+1]); fields[i+1] == "" {
			form.Del(fields[i])
		}
	}
	return "/oauth/authorize?" + form.Encode()
}

// sent is where an answer sends a browser.
func (s *served) sent(t *testing.T, path string) *url.URL {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	// As a browser that a page of another site sends here.
	for name, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"} {
		request.Header.Set(name, value)
	}
	answer, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	to, err := answer.Location()
	if err != nil || answer.StatusCode != http.StatusFound {
		b, _ := io.ReadAll(answer.Body)
		t.Fatalf("%s: %s", answer.Status, b)
	}
	return to
}

func (s *served) register(t *testing.T) (client string) {
	t.Helper()
	answer := s.send(t, "POST", "/oauth/register", "", `{"client_name":"A client","redirect_uris":["`+back+`"],"token_endpoint_auth_method":"client_secret_post"}`, "Content-Type", "application/json")
	said := parse(t, answer)
	if answer.StatusCode != http.StatusCreated || said["token_endpoint_auth_method"] != "none" || said["client_secret"] != nil {
		t.Fatalf("%s %v", answer.Status, said)
	}
	return said["client_id"].(string)
}

// code has a human grant a client a token, and returns the code for it.
func (s *served) code(t *testing.T, client, token string, limits policy.Limits) string {
	t.Helper()
	to := s.sent(t, wish(client))
	id, ok := strings.CutPrefix(to.String(), s.url+"/connect/")
	if !ok {
		t.Fatalf("the browser is sent to %s", to)
	}
	a, code, err := s.human.Connect(t.Context(), id, ledger.Token{Name: token, Limits: limits, Expires: time.Now().Add(time.Hour)})
	if err != nil || a.ClientName != "A client" {
		t.Fatal(a, err)
	}
	onward, err := oauth.Back(a, oauth.Response{Code: code})
	u, _ := url.Parse(onward)
	if err != nil || !strings.HasPrefix(onward, back+"?") || u.Query().Get("code") != code || u.Query().Get("state") != "a state" || u.Query().Get("iss") != s.url {
		t.Errorf("%s, %v", onward, err)
	}
	return code
}

func (s *served) exchange(t *testing.T, client, code string) (access, refresh string) {
	t.Helper()
	answer := s.form(t, "/oauth/token", "grant_type", "authorization_code", "code", code, "client_id", client, "redirect_uri", back, "code_verifier", verifier, "resource", s.url+"/mcp")
	got := parse(t, answer)
	if answer.StatusCode != 200 || got["token_type"] != "Bearer" || got["expires_in"].(float64) < 3000 || got["scope"] != "pixels" || got["id_token"] != nil || answer.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %v", answer.Status, got)
	}
	return got["access_token"].(string), got["refresh_token"].(string)
}

// A client that knows nothing but the address of the server finds its way to a token, whose caps a human chose, renews it, and gives it
// back.
func TestAClientAsksForAToken(t *testing.T) {
	s := serveHTTP(t)
	// It is told where to look, from the refusal on.
	for _, path := range Spoken {
		answer := s.send(t, "POST", path, "", hello)
		found := regexp.MustCompile(`resource_metadata="([^"]+)"`).FindStringSubmatch(answer.Header.Get("WWW-Authenticate"))
		if answer.StatusCode != 401 || len(found) != 2 {
			t.Fatalf("%s: %s, %v", path, answer.Status, answer.Header)
		}
		said := parse(t, s.send(t, "GET", strings.TrimPrefix(found[1], s.url), "", ""))
		if said["resource"] != s.url+path || said["authorization_servers"].([]any)[0] != s.url {
			t.Errorf("%s: %v", path, said)
		}
	}
	said := parse(t, s.send(t, "GET", "/.well-known/oauth-authorization-server", "", ""))
	for field, want := range map[string]any{
		"issuer": s.url, "authorization_endpoint": s.url + "/oauth/authorize", "token_endpoint": s.url + "/oauth/token", "registration_endpoint": s.url + "/oauth/register",
		"revocation_endpoint": s.url + "/oauth/revoke", "client_id_metadata_document_supported": true, "authorization_response_iss_parameter_supported": true,
	} {
		if said[field] != want {
			t.Errorf("%s is %v", field, said[field])
		}
	}
	if said["code_challenge_methods_supported"].([]any)[0] != "S256" {
		t.Error(said)
	}

	client := s.register(t)
	one := int64(1)
	access, refresh := s.exchange(t, client, s.code(t, client, "helper", policy.Limits{Sandboxes: &one}))
	// It has what the human chose.
	session := s.session(t, access)
	create := func(name string) string {
		b, _ := io.ReadAll(s.send(t, "POST", mcpPath, access, toolCall(1, "create_sandbox", `{"name":"`+name+`"}`, ""), "Mcp-Session-Id", session).Body)
		return string(b)
	}
	if b := create("one"); !strings.Contains(b, `"owner":"helper"`) {
		t.Error(b)
	}
	if b := create("two"); !strings.Contains(b, "at most 1") && !strings.Contains(b, `"isError":true`) {
		t.Error(b)
	}
	// It renews its secrets, and goes on in its session.
	renew := func(refresh string) (int, map[string]any) {
		answer := s.form(t, "/oauth/token", "grant_type", "refresh_token", "refresh_token", refresh, "client_id", client, "scope", "pixels offline_access")
		return answer.StatusCode, parse(t, answer)
	}
	status, got := renew(refresh)
	if status != 200 || got["access_token"] == access || got["refresh_token"] == refresh {
		t.Fatalf("%d %v", status, got)
	}
	access = got["access_token"].(string)
	if b := create("two"); strings.Contains(b, "no such session") {
		t.Error(b)
	}
	// What is used again was stolen from one of the two.
	if status, got := renew(refresh); status != 400 || got["error"] != "invalid_grant" {
		t.Errorf("%d %v", status, got)
	}
	if answer := s.send(t, "POST", mcpPath, access, hello); answer.StatusCode != 401 {
		t.Errorf("after a refresh token was used again: %s", answer.Status)
	}
	// It signs in again as the same, and out.
	code := s.code(t, client, "helper", policy.Limits{})
	access, refresh = s.exchange(t, client, code)
	session = s.session(t, access)
	if b, _ := io.ReadAll(s.send(t, "POST", mcpPath, access, toolCall(1, "list_sandboxes", `{}`, ""), "Mcp-Session-Id", session).Body); !strings.Contains(string(b), `"name":"one"`) {
		t.Errorf("its sandbox is lost: %s", b)
	}
	stream := s.send(t, "GET", mcpPath, access, "", "Mcp-Session-Id", session)
	if answer := s.form(t, "/oauth/revoke", "token", refresh, "client_id", client); answer.StatusCode != 200 {
		t.Error(answer.Status)
	}
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, stream.Body); ended <- err }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("its stream goes on")
	}
	if answer := s.send(t, "POST", mcpPath, access, hello); answer.StatusCode != 401 {
		t.Errorf("after it signed out: %s", answer.Status)
	}
	// A code serves once; its second use is the end of what came of it.
	code = s.code(t, client, "helper", policy.Limits{})
	access, _ = s.exchange(t, client, code)
	if answer := s.form(t, "/oauth/token", "grant_type", "authorization_code", "code", code, "client_id", client, "redirect_uri", back, "code_verifier", verifier); answer.StatusCode != 400 {
		t.Errorf("a code served twice: %s", answer.Status)
	}
	if answer := s.send(t, "POST", mcpPath, access, hello); answer.StatusCode != 401 {
		t.Errorf("after a code was used again: %s", answer.Status)
	}
}

// The official conformance suite against the authorization server, with a human who says yes.
func TestOAuthConformance(t *testing.T) {
	t.Parallel()
	s := serveHTTP(t)
	said := parse(t, s.send(t, "POST", "/oauth/register", "", `{"client_name":"suite","redirect_uris":["http://127.0.0.1/callback"]}`))
	cmd := conformance(t, "authorization", "--url", s.url, "--client-id", said["client_id"].(string), "--resource", s.url+mcpPath, "--port", strconv.Itoa(freePort(t)))
	out, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	lines := bufio.NewScanner(io.TeeReader(out, &all))
	for lines.Scan() {
		at := strings.Index(lines.Text(), s.url+"/oauth/authorize?")
		if at < 0 {
			continue
		}
		to := s.sent(t, strings.TrimPrefix(strings.Fields(lines.Text()[at:])[0], s.url))
		a, code, err := s.human.Connect(t.Context(), strings.TrimPrefix(to.Path, "/connect/"), ledger.Token{Name: "suite", Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		onward, _ := oauth.Back(a, oauth.Response{Code: code})
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			answer, err := http.Get(onward)
			if err == nil {
				_ = answer.Body.Close()
				break
			}
			if time.Now().After(end) { // the suite begins to listen after it has said where to go
				t.Fatal(err, all.String())
			}
		}
	}
	if err := cmd.Wait(); err != nil || strings.Count(all.String(), "✓") < 2 || strings.Contains(all.String(), "✗") {
		t.Errorf("%v\n%s", err, all.String())
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
