package approver

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-webauthn/webauthn/webauthn"
)

// What the version that the testdata is from wrote still proves an approval.
func TestAnApproversFileOfTheFirstVersionOpens(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "approver.json"))
	if err != nil {
		t.Fatal(err)
	}
	a := newApprover(t)
	if err := os.WriteFile(a.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.CheckPassphrase("correct horse battery"); err != nil {
		t.Error(err)
	}
	user, err := a.User()
	if err != nil {
		t.Fatal(err)
	}
	keys := user.WebAuthnCredentials()
	if string(user.WebAuthnID()) != "user-id" || len(keys) != 1 || string(keys[0].ID) != "key-1" || string(keys[0].PublicKey) != "public" {
		t.Errorf("%q, %+v", user.WebAuthnID(), keys)
	}
	if err := a.UsedPasskey(webauthn.Credential{ID: []byte("key-1"), Authenticator: webauthn.Authenticator{SignCount: 6}}); err != nil {
		t.Error(err)
	}
}
