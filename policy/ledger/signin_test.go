package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// signIn has a client granted a token, and returns its secrets and the code that it had them for.
func signIn(t *testing.T, s *Store, token string) (in SignedIn, code string) {
	t.Helper()
	if err := s.KeepClient(Client{ID: "client", Name: "A client", Redirects: []string{"http://127.0.0.1/back"}}); err != nil {
		t.Fatal(err)
	}
	id, err := s.Ask(Authorization{Client: "client", ClientName: "A client", Redirect: "http://127.0.0.1/back", State: "s", Challenge: "c", Scope: "pixels"})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := s.Asked(id); err != nil || a.ID != id || a.Client != "client" || a.Challenge != "c" {
		t.Fatalf("%+v, %v", a, err)
	}
	if code, err = s.Answer(id, token); err != nil {
		t.Fatal(err)
	}
	if a, err := s.ByCode(code); err != nil || a.Token != token {
		t.Fatalf("%+v, %v", a, err)
	}
	if in, err = s.Redeem(code); err != nil {
		t.Fatal(err)
	}
	return in, code
}

func good(t *testing.T, s *Store, secret, token string) (key string) {
	t.Helper()
	caps, key, err := s.Authenticate(secret)
	if err != nil || caps.Holder != token {
		t.Fatalf("%+v, %v", caps, err)
	}
	return key
}

func bad(t *testing.T, s *Store, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if caps, _, err := s.Authenticate(secret); !errors.Is(err, ErrToken) {
			t.Errorf("%q is %+v, %v", secret, caps, err)
		}
	}
}

// A client has secrets for a code, which end, and are renewed; the file holds none of them.
func TestSignIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, _ := openStore(t, path)
	now := time.Now()
	s.now = func() time.Time { return now }
	mint(t, s, "worker", `{"sandboxes":1}`)
	first, _ := signIn(t, s, "worker")
	key := good(t, s, first.Access, "worker")
	bad(t, s, first.Refresh)
	now = now.Add(30 * time.Minute)
	second, err := s.Refresh(first.Refresh)
	if err != nil {
		t.Fatal(err)
	}
	if client, scope, err := s.ByRefresh(second.Refresh); client != "client" || scope != "pixels" || err != nil {
		t.Error(client, scope, err)
	}
	good(t, s, first.Access, "worker") // until its own end: calls are under way by it
	if again := good(t, s, second.Access, "worker"); again != key {
		t.Error("its sessions would be lost")
	}
	now = now.Add(31 * time.Minute)
	bad(t, s, first.Access)
	good(t, s, second.Access, "worker")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{path, path + "-wal"} {
		b, _ := os.ReadFile(file)
		for _, secret := range []string{first.Access, first.Refresh, second.Access, second.Refresh} {
			if strings.Contains(string(b), secret) {
				t.Errorf("%s has a secret", file)
			}
		}
	}
}

// What serves once is the end of all that came of it when it comes again: one of the two was a thief.
func TestUsedAgainIsTheEnd(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "pixels.db"))
	mint(t, s, "worker", `{}`)
	in, code := signIn(t, s, "worker")
	if _, err := s.Redeem(code); !errors.Is(err, ErrReused) {
		t.Error(err)
	}
	bad(t, s, in.Access)
	if _, err := s.Refresh(in.Refresh); !errors.Is(err, ErrToken) {
		t.Error(err)
	}

	in, _ = signIn(t, s, "worker")
	next, err := s.Refresh(in.Refresh)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Refresh(in.Refresh); !errors.Is(err, ErrReused) {
		t.Error(err)
	}
	bad(t, s, in.Access, next.Access)
	if _, err := s.Refresh(next.Refresh); !errors.Is(err, ErrToken) {
		t.Error(err)
	}
}

// A client's secrets end with the token, when it signs out, and when it signs in anew; another client ends none.
func TestSignOut(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "pixels.db"))
	mint(t, s, "worker", `{}`)
	in, _ := signIn(t, s, "worker")
	anew, _ := signIn(t, s, "worker")
	bad(t, s, in.Access)
	if err := s.SignOut(anew.Refresh, "another"); err != nil {
		t.Error(err)
	}
	good(t, s, anew.Access, "worker")
	for _, of := range []func(SignedIn) string{func(in SignedIn) string { return in.Access }, func(in SignedIn) string { return in.Refresh }} {
		in, _ := signIn(t, s, "worker")
		before, _ := s.TokensVersion()
		if err := s.SignOut(of(in), "client"); err != nil {
			t.Error(err)
		}
		bad(t, s, in.Access)
		if after, _ := s.TokensVersion(); after == before {
			t.Error("nobody hears of it")
		}
	}
	if _, err := s.CreateToken(Token{Name: "helper", Client: "a client"}, anyName); err != nil {
		t.Fatal(err)
	}
	// So do tokens that it made; and all of it when what it had is granted anew, maybe to another one.
	for _, ends := range []func(SignedIn) error{
		func(in SignedIn) error { return s.SignOut(in.Access, "client") },
		func(SignedIn) error {
			return s.RenewToken(Token{Name: "helper", Client: "another", Expires: time.Now().Add(time.Hour)})
		},
	} {
		in, _ := signIn(t, s, "helper")
		below := mint(t, s, "helper/one", `{}`)
		good(t, s, below, "helper/one")
		if err := ends(in); err != nil {
			t.Fatal(err)
		}
		bad(t, s, in.Access, below)
	}
	in, _ = signIn(t, s, "worker")
	if _, err := s.RevokeToken("worker"); err != nil {
		t.Fatal(err)
	}
	bad(t, s, in.Access)
	if _, err := s.Refresh(in.Refresh); !errors.Is(err, ErrToken) {
		t.Error(err)
	}
	mint(t, s, "worker", `{}`)
	bad(t, s, in.Access)
}

// A wish is answered once, and not after its time; one that was denied has no code.
func TestAuthorizations(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "pixels.db"))
	now := time.Now()
	s.now = func() time.Time { return now }
	mint(t, s, "worker", `{}`)
	id, _ := s.Ask(Authorization{Client: "client"})
	if code, err := s.Answer(id, ""); err != nil || code != "" {
		t.Error(code, err)
	}
	if _, err := s.Answer(id, "worker"); !errors.Is(err, ErrAuthorization) {
		t.Error(err)
	}
	late, _ := s.Ask(Authorization{Client: "client"})
	now = now.Add(authorizationLife)
	if _, err := s.Asked(late); !errors.Is(err, ErrAuthorization) {
		t.Error(err)
	}
	id, _ = s.Ask(Authorization{Client: "client"})
	code, err := s.Answer(id, "worker")
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(codeLife)
	if _, err := s.Redeem(code); !errors.Is(err, ErrAuthorization) {
		t.Error(err)
	}
	for range maxAuthorizations {
		if _, err := s.Ask(Authorization{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Ask(Authorization{}); err == nil {
		t.Error("anybody can have any number of them kept")
	}
}

// Anybody may register: those whom nobody grants anything are forgotten.
func TestClientsAreForgotten(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "pixels.db"))
	now := time.Now()
	s.now = func() time.Time { return now }
	mint(t, s, "worker", `{}`)
	signIn(t, s, "worker")
	for i := range maxClients - 1 {
		if err := s.KeepClient(Client{ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.KeepClient(Client{ID: "more"}); err == nil {
		t.Error("anybody can have any number of them kept")
	}
	now = now.Add(clientLife + time.Second)
	if err := s.KeepClient(Client{ID: "more"}); err != nil {
		t.Error(err)
	}
	if _, err := s.Client("1"); !errors.Is(err, ErrClient) {
		t.Error(err)
	}
	if c, err := s.Client("client"); err != nil || c.Name != "A client" {
		t.Error("one who has a token was forgotten")
	}
}
