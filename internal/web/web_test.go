package web

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/egress"
	"pixels/policy/approver"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

const token = "a-token-that-nobody-guesses"

// site is a page over a backend in memory, with a sandbox "box" and two clones of it.
type site struct {
	*sandboxtest.Memory
	agent *manager.Manager
	door  manager.Door
	store *ledger.Store
	url   string
}

func newSite(t testing.TB, rules string) *site {
	t.Helper()
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s := &site{Memory: sandboxtest.NewMemory(), store: store}
	s.agent, s.door = manager.NewWithDoor(s.Memory, manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Policy: sandboxtest.Policy(t, rules), Store: store})
	ctx := context.Background()
	_, err = s.agent.Create(ctx, manager.Agent("alice"), manager.CreateRequest{Name: "box"})
	if err == nil {
		_, err = s.agent.CreateCheckpoint(ctx, manager.Agent("alice"), "box", "one", "")
	}
	if err == nil {
		_, err = s.agent.Clone(ctx, manager.Agent("alice"), manager.CloneRequest{Source: "box:one", Count: 2})
	}
	if err == nil {
		_, err = s.agent.Create(ctx, manager.Agent("bob"), manager.CreateRequest{Name: "lab"})
	}
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) { // the record is written behind the calls
		if owners, err := store.Owners(); err == nil && len(owners) == 2 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("owners are %v, %v", owners, err)
		}
	}
	server, err := New(s.door.Human("web"), token, nil, func(err error) { t.Logf("the page says: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + l.Addr().String()
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(serving, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask raises a request as an agent does.
func (s *site) ask(t testing.TB, domain, reason string) ledger.Request {
	t.Helper()
	got, err := s.agent.Allow(context.Background(), manager.Agent("alice"), manager.AllowRequest{Name: "box", Domains: []string{domain}, Reason: reason})
	if err != nil {
		t.Fatal(err)
	}
	return got.Requests[0]
}

func (s *site) state(t testing.TB, id string) ledger.RequestState {
	t.Helper()
	r, err := s.store.Request(id)
	if err != nil {
		t.Fatal(err)
	}
	return r.State
}

// visitor is a browser without a script.
type visitor struct {
	*http.Client
	site   *site
	secret string // of its session
}

func (s *site) visitor(testing.TB) *visitor {
	return &visitor{Client: &http.Client{Timeout: 20 * time.Second}, site: s}
}

func (v *visitor) do(t testing.TB, method, path string, form url.Values, header ...string) (int, string) {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequest(method, v.site.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if v.secret != "" {
		r.Header.Set(sessionHeader, v.secret)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	resp, err := v.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// signIn signs in.
func (v *visitor) signIn(t testing.TB) {
	t.Helper()
	status, body := v.do(t, "POST", "/login", url.Values{"token": {token}}, sessionHeader, "none")
	if status != http.StatusOK || len(body) < 20 {
		t.Fatalf("%d %s", status, body)
	}
	v.secret = body
}

func TestOnlyWhoSignedInSeesAndDecides(t *testing.T) {
	s := newSite(t, "")
	r := s.ask(t, "example.com", "to read the docs")
	stranger := s.visitor(t)
	for _, path := range []string{"/", "/requests/" + r.ID, "/sandboxes", "/audit"} {
		if _, body := stranger.do(t, "GET", path, nil); !strings.Contains(body, "Sign in") || strings.Contains(body, "example.com") || strings.Contains(body, r.ID) {
			t.Errorf("%s shows %s", path, body)
		}
	}
	for _, path := range []string{"/requests/" + r.ID + "/approve", "/panic", "/logout"} {
		if status, _ := stranger.do(t, "POST", path, url.Values{"for": {"1h"}}); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", path, status)
		}
	}
	if status, _ := stranger.do(t, "GET", "/events", nil); status != http.StatusUnauthorized {
		t.Errorf("events: %d", status)
	}
	v := s.visitor(t)
	v.signIn(t)
	approve := url.Values{"for": {"1h"}, "scope": {"lineage"}, "seen": {s.agent.Digest(r)}}
	for what, c := range map[string]struct {
		form   url.Values
		header []string
		status int
	}{
		"without the secret":          {approve, []string{sessionHeader, ""}, http.StatusUnauthorized},
		"with another":                {approve, []string{sessionHeader, "AAAAAAAAAAAAAAAAAAAAAAAAAA"}, http.StatusUnauthorized},
		"from another site":           {approve, []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		"cross-site, as browsers say": {approve, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		"by another name":             {approve, []string{"Host", "evil.example"}, http.StatusMisdirectedRequest},
		"by another port":             {approve, []string{"Host", "127.0.0.1:1"}, http.StatusMisdirectedRequest},
	} {
		if status, body := v.do(t, "POST", "/requests/"+r.ID+"/approve", c.form, c.header...); status != c.status {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
	if state := s.state(t, r.ID); state != ledger.RequestOpen {
		t.Fatalf("it is %s", state)
	}
	// What was shown before another sandbox asked is not what is answered now.
	if _, err := s.agent.Allow(t.Context(), manager.Agent("alice"), manager.AllowRequest{Name: "box-1", Domains: []string{"example.com"}, Reason: "me too"}); err != nil {
		t.Fatal(err)
	}
	if status, body := v.do(t, "POST", "/requests/"+r.ID+"/approve", approve); status != http.StatusConflict || !strings.Contains(body, "has changed since it was shown") || s.state(t, r.ID) != ledger.RequestOpen {
		t.Errorf("an answer to what was shown before: %d %s", status, body)
	}
	now, err := s.store.Request(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	approve.Set("seen", s.agent.Digest(now))
	status, body := v.do(t, "POST", "/requests/"+r.ID+"/approve", approve)
	if status != http.StatusOK || s.state(t, r.ID) != ledger.RequestGranted || !strings.Contains(body, "example.com is in reach of 3 sandboxes") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := v.do(t, "POST", "/requests/"+r.ID+"/approve", approve); status != http.StatusConflict || !strings.Contains(body, "decided already") {
		t.Errorf("twice: %d %s", status, body)
	}
	no := s.ask(t, "other.example.com", "")
	if status, _ := v.do(t, "POST", "/requests/"+no.ID+"/deny", url.Values{"answer": {"no"}}); status != http.StatusOK || s.state(t, no.ID) != ledger.RequestDenied {
		t.Errorf("deny: %d", status)
	}
	if status, body := v.do(t, "POST", "/requests/"+no.ID+"/approve", url.Values{"for": {"9000h"}, "seen": {s.agent.Digest(no)}}); status != http.StatusUnprocessableEntity {
		t.Errorf("too long: %d %s", status, body)
	}
	if status, _ := v.do(t, "GET", "/requests/req-none", nil); status != http.StatusNotFound {
		t.Errorf("none: %d", status)
	}
	v.do(t, "POST", "/logout", url.Values{})
	if status, _ := v.do(t, "GET", "/", nil); status != http.StatusUnauthorized {
		t.Error("still signed in")
	}
}

// A stranger who tries tokens slows himself, and others from his address a little; he keeps nobody out.
func TestWrongTokensKeepNobodyOut(t *testing.T) {
	s := newSite(t, "")
	v := s.visitor(t)
	start := time.Now()
	for range freeTries + 2 {
		if status, _ := v.do(t, "POST", "/login", url.Values{"token": {"wrong"}}, sessionHeader, "none"); status != http.StatusForbidden {
			t.Fatal(status)
		}
	}
	if took := time.Since(start); took < 750*time.Millisecond {
		t.Errorf("wrong ones took %s", took)
	}
	var strangers sync.WaitGroup
	for range 50 {
		strangers.Go(func() { v.do(t, "POST", "/login", url.Values{"token": {"wrong"}}, sessionHeader, "none") })
	}
	time.Sleep(100 * time.Millisecond)
	v.signIn(t)
	strangers.Wait()
	other := httptest.NewRequest("POST", "/login", nil)
	other.RemoteAddr = "198.51.100.7:1234"
	var tries tries
	wrong := func() error { return approver.ErrProof }
	for range 20 {
		tries.count([]any{"198.51.100.8"})
	}
	start = time.Now()
	if _ = tries.check(other, nil, wrong); time.Since(start) > 200*time.Millisecond {
		t.Error("another address waits for what a stranger did")
	}
}

// What a browser would send to another port of this host, and all that a GET answers without the session's secret, lets
// nobody in.
func TestNothingThatIsServedLetsAnybodyIn(t *testing.T) {
	s := newSite(t, "")
	v := s.visitor(t)
	r, err := http.NewRequest("POST", s.url+"/login", strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := v.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a form without the script: %d", resp.StatusCode)
	}
	v.signIn(t)
	for _, path := range []string{"/", "/sandboxes", "/audit", "/passkeys", "/?part=cards"} {
		for _, header := range []string{"", v.secret} {
			r, err := http.NewRequest("GET", s.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if header != "" {
				r.Header.Set(sessionHeader, header)
			}
			resp, err := v.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || strings.Contains(string(body), v.secret) || strings.Contains(fmt.Sprint(resp.Header), v.secret) || resp.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s tells the secret: %v", path, err)
			}
		}
	}
}

func TestWhatAgentsWriteStaysText(t *testing.T) {
	s := newSite(t, "")
	const evil = `</blockquote><script>document.title='taken'</script><img src=x onerror=alert(1)>`
	s.ask(t, "example.com", evil)
	v := s.visitor(t)
	v.signIn(t)
	for _, path := range []string{"/", "/audit", "/audit?text=%22%3E%3Cscript%3E"} {
		_, body := v.do(t, "GET", path, nil)
		if strings.Contains(body, "<script>") || strings.Contains(body, "<img") {
			t.Errorf("%s: %s", path, body)
		}
	}
	resp, err := v.Get(s.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Error(csp)
	}
}

func TestPanicCutsALineageOff(t *testing.T) {
	s := newSite(t, "")
	v := s.visitor(t)
	v.signIn(t)
	mode := func(owner, name string) egress.Mode {
		box, err := s.Get(t.Context(), owner, name)
		if err != nil {
			t.Fatal(err)
		}
		return box.Egress
	}
	if _, body := v.do(t, "POST", "/panic", url.Values{"owner": {"alice"}, "name": {"box-1"}, "back": {"/sandboxes"}}); mode("alice", "box-1") != egress.None || mode("alice", "box") == egress.None || !strings.Contains(body, "Cut off: box-1") {
		t.Errorf("one: %s", body)
	}
	v.do(t, "POST", "/panic", url.Values{"owner": {"alice"}, "name": {"box-2"}, "lineage": {"yes"}})
	if mode("alice", "box") != egress.None || mode("alice", "box-2") != egress.None || mode("bob", "lab") == egress.None {
		t.Error("not the lineage, or more")
	}
}

// thousand raises a thousand requests, of many owners, for one may not have so many.
func (s *site) thousand(t testing.TB) {
	t.Helper()
	for i := range 1000 {
		_, _, err := s.store.Raise(ledger.Request{
			Owner: fmt.Sprint("owner", i/40), Sandbox: "box", Lineage: fmt.Sprint("lineage", i/20), Subject: fmt.Sprintf("h%d.example.com", i), Source: ledger.ByAgent, Reason: "one of many",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAThousandRequestsAreShown(t *testing.T) {
	s := newSite(t, "")
	s.thousand(t)
	v := s.visitor(t)
	v.signIn(t)
	start := time.Now()
	_, body := v.do(t, "GET", "/", nil)
	if n := strings.Count(body, "data-card"); n != 1000 {
		t.Errorf("%d are shown", n)
	}
	fmt.Printf("%-58s %8.2f ms  %28s\n", "the page with 1000 requests", time.Since(start).Seconds()*1000, "bound 300")
}
