package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/alexedwards/argon2id"
	"github.com/go-webauthn/webauthn/webauthn"
)

// Approver is what proves that the human approves: a passphrase, as its hash, and passkeys. It is one file, which only
// the user that servers run under may read or write.
type Approver struct {
	path string
	mu   sync.Mutex
}

// approver is the file.
type approver struct {
	Passphrase string                `json:"passphrase,omitempty"` // argon2id, in its usual form
	UserID     []byte                `json:"user_id,omitempty"`    // of the passkeys
	Passkeys   []webauthn.Credential `json:"passkeys,omitempty"`
}

// What a caller tells apart.
var (
	// ErrProof means that what was shown does not prove that a human approves, or that nothing was shown.
	ErrProof = errors.New("not proven")
	// ErrNoProofYet means that there is nothing yet that could be shown.
	ErrNoProofYet = errors.New("nothing is set up that could prove it")
)

// shortest is how many characters a passphrase has at least.
const shortest = 12

// hashing is what one try of a passphrase costs: some 0.1 s and 64 MiB (RFC 9106, second recommendation).
var hashing = &argon2id.Params{Memory: 64 * 1024, Iterations: 3, Parallelism: uint8(min(runtime.NumCPU(), 4)), SaltLength: 16, KeyLength: 32}

// Approver returns what proves an approval for this store: a file beside it.
func (s *Store) Approver() *Approver {
	if s == nil {
		return &Approver{} // there is nothing to prove it by
	}
	return &Approver{path: filepath.Join(filepath.Dir(s.path), "approver.json")}
}

func (a *Approver) load() (f approver, err error) {
	b, err := os.ReadFile(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return f, fmt.Errorf("what proves an approval, in %s: %w", a.path, err)
	}
	return f, nil
}

func (a *Approver) save(f approver) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(a.path+".new", a.path)
}

// SetPassphrase sets the passphrase. Where there is one, it must be shown.
func (a *Approver) SetPassphrase(was, next string) error {
	if len([]rune(next)) < shortest {
		return fmt.Errorf("that passphrase is too short: use %d characters or more, such as four words", shortest)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	f, err := a.load()
	if err != nil {
		return err
	}
	if f.Passphrase != "" {
		if err := f.check(was); err != nil {
			return fmt.Errorf("the passphrase that there is: %w", err)
		}
	}
	if f.Passphrase, err = argon2id.CreateHash(next, hashing); err != nil {
		return err
	}
	return a.save(f)
}

func (f approver) check(passphrase string) error {
	if f.Passphrase == "" {
		return fmt.Errorf("%w: set a passphrase with `pixels-mcp approval passphrase`", ErrNoProofYet)
	}
	ok, err := argon2id.ComparePasswordAndHash(passphrase, f.Passphrase)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: that is not the passphrase", ErrProof)
	}
	return nil
}

// CheckPassphrase returns nil when a passphrase is the one that was set; ErrProof, ErrNoProofYet.
func (a *Approver) CheckPassphrase(passphrase string) error {
	a.mu.Lock() // one at a time: each takes much memory
	defer a.mu.Unlock()
	f, err := a.load()
	if err != nil {
		return err
	}
	return f.check(passphrase)
}

// Set tells whether there is a passphrase, and how many passkeys there are.
func (a *Approver) Set() (passphrase bool, passkeys int, err error) {
	f, err := a.load()
	return f.Passphrase != "", len(f.Passkeys), err
}

// User returns the human, for WebAuthn.
func (a *Approver) User() (*User, error) {
	f, err := a.load()
	if err != nil {
		return nil, err
	}
	return &User{f}, nil
}

// User is the human, as WebAuthn wants them.
type User struct{ f approver }

// WebAuthnID implements webauthn.User.
func (u *User) WebAuthnID() []byte { return u.f.UserID }

// WebAuthnName implements webauthn.User.
func (u *User) WebAuthnName() string { return "approver" }

// WebAuthnDisplayName implements webauthn.User.
func (u *User) WebAuthnDisplayName() string { return "Pixels approver" }

// WebAuthnCredentials implements webauthn.User.
func (u *User) WebAuthnCredentials() []webauthn.Credential { return u.f.Passkeys }

// Enrol makes sure that there is an ID of the human, before a passkey is made for it.
func (a *Approver) Enrol(id []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, err := a.load()
	if err != nil || len(f.UserID) > 0 {
		return err
	}
	f.UserID = id
	return a.save(f)
}

// KeepPasskey adds a passkey, or puts its counter where it is now.
func (a *Approver) KeepPasskey(c webauthn.Credential) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, err := a.load()
	if err != nil {
		return err
	}
	for i := range f.Passkeys {
		if string(f.Passkeys[i].ID) == string(c.ID) {
			f.Passkeys[i] = c
			return a.save(f)
		}
	}
	f.Passkeys = append(f.Passkeys, c)
	return a.save(f)
}
