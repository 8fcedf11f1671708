package selfsigned

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A client that pins a certificate reaches the server that has it, and no other.
func TestPinned(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "new")
	first, err := Load(folder, []string{"localhost", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(folder, nil)
	if err != nil || Fingerprint(again.Certificate[0]) != Fingerprint(first.Certificate[0]) {
		t.Fatalf("another one at the next start: %v", err)
	}
	other, err := Load(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(folder, "http.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{first}}
	server.StartTLS()
	defer server.Close()
	colons := strings.ToUpper(Fingerprint(first.Certificate[0]))
	for fingerprint, want := range map[string]string{Fingerprint(first.Certificate[0]): "", colons[:2] + ":" + colons[2:]: "", Fingerprint(other.Certificate[0]): "has the fingerprint"} {
		config, err := Pinned(fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		c := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		answer, err := c.Get(server.URL)
		if err == nil {
			_ = answer.Body.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", fingerprint, err)
		}
	}
	for _, bad := range []string{"", "abc", strings.Repeat("z", 64)} {
		if _, err := Pinned(bad); err == nil {
			t.Errorf("%q is a fingerprint", bad)
		}
	}
}
