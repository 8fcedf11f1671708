package policy

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestThePassphrase(t *testing.T) {
	a := newStore(t).Approver()
	if err := a.CheckPassphrase(""); !errors.Is(err, ErrNoProofYet) {
		t.Errorf("before there is one: %v", err)
	}
	if err := a.SetPassphrase("", "short"); err == nil {
		t.Error("a short one is taken")
	}
	if err := a.SetPassphrase("", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	if err := a.CheckPassphrase("correct horse battery"); err != nil {
		t.Error(err)
	}
	for _, wrong := range []string{"", "correct horse batterz", "Correct horse battery"} {
		if err := a.CheckPassphrase(wrong); !errors.Is(err, ErrProof) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if err := a.SetPassphrase("wrong", "another passphrase"); !errors.Is(err, ErrProof) {
		t.Errorf("changed without the old one: %v", err)
	}
	if err := a.SetPassphrase("correct horse battery", "another passphrase"); err != nil || a.CheckPassphrase("another passphrase") != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(a.path)
	info, err2 := os.Stat(a.path)
	if err != nil || err2 != nil || !strings.Contains(string(b), "$argon2id$") || strings.Contains(string(b), "another") || info.Mode().Perm() != 0o600 {
		t.Errorf("%s, %v, %v", b, info, err)
	}
	if err := os.WriteFile(a.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.CheckPassphrase("another passphrase"); err == nil {
		t.Error("a broken file proves it")
	}
}
