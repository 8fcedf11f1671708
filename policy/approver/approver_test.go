package approver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/go-webauthn/webauthn/webauthn"
)

func newApprover(t testing.TB) *Approver { return Beside(filepath.Join(t.TempDir(), "pixels.db")) }

func TestThePassphrase(t *testing.T) {
	a := newApprover(t)
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
	if err := a.CheckPassphrase("another passphrase"); !errors.Is(err, ErrProofLost) {
		t.Errorf("a broken file: %v", err)
	}
}

func TestALostProofApprovesNothing(t *testing.T) {
	a := newApprover(t)
	if err := a.SetPassphrase("", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a.path); err != nil {
		t.Fatal(err)
	}
	if err := a.CheckPassphrase("correct horse battery"); !errors.Is(err, ErrProofLost) {
		t.Errorf("it is checked: %v", err)
	}
	if err := a.AddPasskey(webauthn.Credential{ID: []byte("a")}, true); !errors.Is(err, ErrProofLost) {
		t.Errorf("a passkey is added: %v", err)
	}
	if err := a.Enrol([]byte("me")); !errors.Is(err, ErrProofLost) {
		t.Errorf("somebody is enrolled: %v", err)
	}
	if err := a.SetPassphrase("", "another passphrase"); err != nil || a.CheckPassphrase("another passphrase") != nil {
		t.Errorf("its owner can't set it up anew: %v", err)
	}
}

func TestNoPasskeyIsLost(t *testing.T) {
	a := newApprover(t)
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			if err := a.AddPasskey(webauthn.Credential{ID: fmt.Append(nil, i)}, true); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, n, err := a.Set(); err != nil || n != 30 {
		t.Errorf("%d, %v", n, err)
	}
	if err := a.AddPasskey(webauthn.Credential{ID: []byte("late")}, false); !errors.Is(err, ErrProof) {
		t.Errorf("one more without a proof: %v", err)
	}
	if err := a.UsedPasskey(webauthn.Credential{ID: []byte("late")}); !errors.Is(err, ErrProof) {
		t.Errorf("one that is not there was used: %v", err)
	}
	used := webauthn.Credential{ID: []byte("7"), Authenticator: webauthn.Authenticator{SignCount: 5}}
	if err := a.UsedPasskey(used); err != nil {
		t.Error(err)
	}
	if err := a.UsedPasskey(used); !errors.Is(err, ErrProof) {
		t.Errorf("the same use twice: %v", err)
	}
}

// Each try takes 64 MiB: however many come at once, by however many callers, one is under way.
func TestPassphrasesAreTriedOneAtATime(t *testing.T) {
	a := newApprover(t)
	if err := a.SetPassphrase("", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			if err := a.CheckPassphrase("wrong"); !errors.Is(err, ErrProof) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 320<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}
