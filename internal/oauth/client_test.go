package oauth

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pixels/egress"
)

func TestRedirects(t *testing.T) {
	for _, good := range []string{"https://client.example/back", "http://127.0.0.1:1234/back", "http://localhost/back", "http://[::1]:5/back", "cursor://anysphere.cursor-mcp/oauth/callback", "com.example.app:/back"} {
		if err := checkRedirect(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "back", "http://client.example/back", "http://127.0.0.1.evil.example/", "https:///back", "javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "file:///etc/passwd", "https://client.example/back#x", "https://user@client.example/", "blob:https://x/y", "https://client.example/" + strings.Repeat("x", maxRedirect)} {
		if err := checkRedirect(bad); err == nil {
			t.Errorf("%.60s is good", bad)
		}
	}
	d := described{Name: "  A\u202e client\x1b[31m\n " + strings.Repeat("x", 100), Redirects: []string{"https://client.example/"}}
	if c, err := d.client(); err != nil || strings.ContainsAny(c.Name, "\u202e\x1b\n") || !strings.HasPrefix(c.Name, "A client [31m x") || len([]rune(c.Name)) != maxName {
		t.Errorf("%q, %v", c.Name, err)
	}
}

// documents serves documents by HTTPS on this machine, which is let for the test.
func documents(t *testing.T, public func(netip.Addr) bool, serve http.HandlerFunc) (d *Documents, url string) {
	t.Helper()
	s := httptest.NewTLSServer(serve)
	t.Cleanup(s.Close)
	return newDocuments(public, &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}), s.URL
}

func everywhere(netip.Addr) bool { return true }

// The document of a client is read from where its ID says, and nowhere else, as far as it may be long, and no longer than it may take.
func TestDocuments(t *testing.T) {
	var base string
	d, base := documents(t, everywhere, func(w http.ResponseWriter, r *http.Request) {
		say := func(format string, args ...any) { fmt.Fprintf(w, format, args...) }
		id := base + r.URL.Path
		switch r.URL.Path {
		case "/good":
			say(`{"client_id":%q,"client_name":"Good","redirect_uris":["https://client.example/back"],"token_endpoint_auth_method":"none"}`, id)
		case "/nameless":
			say(`{"client_id":%q,"redirect_uris":["https://client.example/back"]}`, id)
		case "/other":
			say(`{"client_id":"https://client.example/","redirect_uris":["https://client.example/back"]}`)
		case "/secret":
			say(`{"client_id":%q,"redirect_uris":["https://client.example/back"],"token_endpoint_auth_method":"client_secret_basic"}`, id)
		case "/nowhere":
			say(`{"client_id":%q}`, id)
		case "/plain":
			say(`{"client_id":%q,"redirect_uris":["http://client.example/back"]}`, id)
		case "/text":
			say("hello")
		case "/moved":
			http.Redirect(w, r, "/good", http.StatusFound)
		case "/long":
			say(`{"client_id":%q,"redirect_uris":["https://client.example/back"],"x":%q}`, id, strings.Repeat("x", maxDocument))
		case "/slow":
			select {
			case <-r.Context().Done():
			case <-time.After(3 * documentTime):
			}
		default:
			http.NotFound(w, r)
		}
	})
	if c, err := d.Read(t.Context(), base+"/good"); err != nil || c.ID != base+"/good" || c.Name != "Good" || len(c.Redirects) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := d.Read(t.Context(), base+"/nameless"); err != nil || !strings.HasPrefix(base, "https://"+c.Name) {
		t.Errorf("%+v, %v", c, err)
	}
	for path, why := range map[string]string{
		"/other": "another client_id", "/secret": "PKCE", "/nowhere": "redirect_uris", "/plain": "must be https", "/text": "no JSON", "/moved": "302", "/long": "longer", "/none": "404",
		"": "a path", "/": "a path", "/a/../good": "without dots", "/good#x": "fragment",
	} {
		if _, err := d.Read(t.Context(), base+path); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := d.Read(t.Context(), strings.Replace(base, "https:", "http:", 1)+"/good"); err == nil {
		t.Error("read by plain HTTP")
	}
	began := time.Now()
	if _, err := d.Read(context.Background(), base+"/slow"); err == nil || time.Since(began) > documentTime+3*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// A document is read from the internet alone: else anybody could have this server look into the networks that it is in.
func TestDocumentsAreOfTheInternet(t *testing.T) {
	d, base := documents(t, egress.Public, func(http.ResponseWriter, *http.Request) { t.Error("this machine was called") })
	for _, url := range []string{base + "/good", strings.Replace(base, "127.0.0.1", "localhost", 1) + "/good", "https://10.0.0.1/good", "https://[::1]/good", "https://169.254.169.254/latest", "https://192.168.1.1/x"} {
		if _, err := d.Read(t.Context(), url); err == nil || !strings.Contains(err.Error(), "internet's") && !strings.Contains(err.Error(), "no suitable address") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
