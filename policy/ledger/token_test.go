package ledger

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pixels/internal/fault"
	"pixels/policy"
)

func anyName(string) error { return nil }

func mint(t testing.TB, s *Store, name, limits string) (secret string) {
	t.Helper()
	var l policy.Limits
	if err := json.Unmarshal([]byte(limits), &l); err != nil {
		t.Fatal(err)
	}
	secret, err := s.CreateToken(Token{Name: name, Limits: l}, anyName)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// A token is known by its secret, which the file does not hold, and is bounded by those above it, with which it ends.
func TestTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	s, _ := openStore(t, path)
	other, _ := openStore(t, path) // of another process
	top, child := mint(t, s, "orch", `{"sandboxes":3,"domains":["*.example.com"]}`), mint(t, s, "orch/w1", `{"sandboxes":1}`)
	caps, _, err := other.Authenticate(child)
	if err != nil || caps.Holder != "orch/w1" || *caps.Sandboxes != 1 || caps.Parent.Holder != "orch" || *caps.Parent.Sandboxes != 3 || caps.Parent.Parent != nil || (*caps.Parent.Domains)[0].String() != "*.example.com" {
		t.Fatalf("%+v, %v", caps, err)
	}
	for _, secret := range []string{"", "pixels_", top + "x", strings.ToUpper(top), strings.TrimPrefix(top, "pixels_")} {
		if caps, _, err := s.Authenticate(secret); !errors.Is(err, ErrToken) || caps != nil {
			t.Errorf("%q is %+v, %v", secret, caps, err)
		}
	}
	all, err := s.Tokens()
	if err != nil || len(all) != 2 || all[0].Name != "orch" || !all[0].Used.IsZero() || all[1].Used.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	if ended, err := other.RevokeToken("orch"); err != nil || !slices.Equal(ended, []string{"orch", "orch/w1"}) {
		t.Errorf("%v, %v", ended, err)
	}
	for _, secret := range []string{top, child} {
		if caps, _, err := s.Authenticate(secret); !errors.Is(err, ErrToken) {
			t.Errorf("a revoked token is %+v, %v", caps, err)
		}
	}
	if ended, err := s.RevokeToken("orch"); err != nil || len(ended) > 0 {
		t.Errorf("twice: %v, %v", ended, err)
	}
	if _, err := s.RevokeToken("orc"); !errors.Is(err, ErrToken) {
		t.Errorf("none: %v", err)
	}
	files, _ := filepath.Glob(path + "*")
	for _, file := range files {
		if b, err := os.ReadFile(file); err != nil || strings.Contains(string(b), top[len("pixels_"):]) {
			t.Errorf("%s has the secret in it, %v", file, err)
		}
	}
}

func TestATokenThatCanNotBeMade(t *testing.T) {
	s := newStore(t)
	mint(t, s, "orch", `{"sandboxes":3}`)
	mint(t, s, "gone", `{}`)
	if _, err := s.RevokeToken("gone"); err != nil {
		t.Fatal(err)
	}
	more, inUse := int64(4), errors.New("it has sandboxes")
	for _, test := range []struct {
		token Token
		free  error
		want  error
	}{
		{Token{Name: "orch"}, nil, fault.Exists},
		{Token{Name: ""}, nil, fault.Invalid},
		{Token{Name: "Orch"}, nil, fault.Invalid},
		{Token{Name: "orch/"}, nil, fault.Invalid},
		{Token{Name: "orch//w"}, nil, fault.Invalid},
		{Token{Name: "orch/" + strings.Repeat("a", 32)}, nil, fault.Invalid},
		{Token{Name: "orch" + strings.Repeat("/a", maxDepth)}, nil, fault.Invalid},
		{Token{Name: "late", Expires: time.Now().Add(-time.Second)}, nil, fault.Invalid},
		{Token{Name: "nobody/w"}, nil, fault.NotFound},
		{Token{Name: "gone/w"}, nil, fault.NotFound},
		{Token{Name: "orch/w", Limits: policy.Limits{Sandboxes: &more}}, nil, fault.Invalid},
		{Token{Name: "gone"}, inUse, inUse},
	} {
		if secret, err := s.CreateToken(test.token, func(string) error { return test.free }); !errors.Is(err, test.want) {
			t.Errorf("%+v: %q, %v", test.token, secret, err)
		}
	}
	if all, err := s.Tokens(); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	if secret := mint(t, s, "gone", `{}`); secret == "" {
		t.Error("a name of which nothing is left can't be had again")
	}
}

func TestATokenExpires(t *testing.T) {
	s := newStore(t)
	now := time.Now()
	s.now = func() time.Time { return now }
	secret, err := s.CreateToken(Token{Name: "short", Expires: now.Add(time.Hour)}, anyName)
	if err != nil {
		t.Fatal(err)
	}
	child := mint(t, s, "short/child", `{}`)
	if _, _, err := s.Authenticate(child); err != nil {
		t.Error(err)
	}
	now = now.Add(time.Hour)
	for _, secret := range []string{secret, child} {
		if _, _, err := s.Authenticate(secret); !errors.Is(err, ErrToken) {
			t.Errorf("it goes on: %v", err)
		}
	}
}
