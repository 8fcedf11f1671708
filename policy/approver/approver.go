// Package approver keeps what proves that a human approves: a passphrase and passkeys.
package approver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/go-webauthn/webauthn/webauthn"

	"pixels/internal/fault"
)

// Approver is what proves that the human approves: a passphrase, as its hash, and passkeys. It is one file, which only
// the user that servers run under may read or write. Whatever changes it, or tries a passphrase, does so alone among all
// processes. A second file says that it was set up once: where it is lost then, nothing is approved.
type Approver struct{ path string }

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
	// ErrProofLost means that what was set up is gone, so that nothing can be approved.
	ErrProofLost = errors.New("what proves an approval was set up, and is lost")
)

// shortest is how many characters a passphrase has at least.
const shortest = 12

// hashing is what one try of a passphrase costs: some 0.1 s and 64 MiB (RFC 9106, second recommendation).
var hashing = &argon2id.Params{Memory: 64 * 1024, Iterations: 3, Parallelism: uint8(min(runtime.NumCPU(), 4)), SaltLength: 16, KeyLength: 32}

// Beside returns what proves an approval for a ledger at a path: a file beside it. For an empty path, that of no ledger,
// there is nothing that proves one.
func Beside(path string) *Approver {
	if path == "" {
		return &Approver{}
	}
	return &Approver{path: filepath.Join(filepath.Dir(path), "approver.json")}
}

func (a *Approver) marker() string { return a.path + ".set-up" }

func (a *Approver) load() (f approver, err error) {
	if a.path == "" {
		return f, nil
	}
	b, err := os.ReadFile(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(a.marker()); err == nil {
			return f, fault.With(fmt.Errorf("%w (%s is not there)", ErrProofLost, a.path), fault.Hint{Action: fault.ProveAnew})
		}
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return f, fault.With(fmt.Errorf("%w (%s: %w)", ErrProofLost, a.path, err), fault.Hint{Action: fault.ProveAnew})
	}
	return f, nil
}

// lockWait is how long one waits for others who have the file: a try of a passphrase takes a moment.
const lockWait = 30 * time.Second

// alone calls do while no other process, and nobody else here, does.
func (a *Approver) alone(do func() error) error {
	f, err := os.OpenFile(a.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() // which gives the lock back
	for end := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		got, err := lock(f)
		if err != nil {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if got {
			return do()
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: too many try at once; try again", ErrProof)
		}
	}
}

// change changes the file. With anew, one that is lost is begun anew.
func (a *Approver) change(anew bool, do func(*approver) error) error {
	return a.alone(func() error {
		f, err := a.load()
		if anew && errors.Is(err, ErrProofLost) {
			f, err = approver{}, nil
		}
		if err == nil {
			err = do(&f)
		}
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(f, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(a.path+".new", b, 0o600); err != nil {
			return err
		}
		if err := os.Rename(a.path+".new", a.path); err != nil {
			return err
		}
		if f.Passphrase == "" && len(f.Passkeys) == 0 {
			return nil
		}
		return os.WriteFile(a.marker(), nil, 0o600)
	})
}

// SetPassphrase sets the passphrase. Where there is one, it must be shown; where what there was is lost, it is set up anew.
func (a *Approver) SetPassphrase(was, next string) error {
	if len([]rune(next)) < shortest {
		return fmt.Errorf("that passphrase is too short: use %d characters or more, such as four words", shortest)
	}
	return a.change(true, func(f *approver) (err error) {
		if f.Passphrase != "" {
			if err := f.check(was); err != nil {
				return fmt.Errorf("the passphrase that there is: %w", err)
			}
		}
		f.Passphrase, err = argon2id.CreateHash(next, hashing)
		return err
	})
}

func (f approver) check(passphrase string) error {
	ok, err := argon2id.ComparePasswordAndHash(passphrase, f.Passphrase)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: that is not the passphrase", ErrProof)
	}
	return nil
}

// CheckPassphrase returns nil when a passphrase is the one that was set; ErrProof, ErrNoProofYet, ErrProofLost.
func (a *Approver) CheckPassphrase(passphrase string) error {
	f, err := a.load()
	if err != nil {
		return err
	}
	if f.Passphrase == "" {
		return fault.With(ErrNoProofYet, fault.Hint{Action: fault.SetPassphrase})
	}
	return a.alone(func() error { return f.check(passphrase) }) // one at a time: each takes much memory
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
	return a.change(false, func(f *approver) error {
		if len(f.UserID) == 0 {
			f.UserID = id
		}
		return nil
	})
}

// AddPasskey adds a passkey. The first one needs no proof where there is no passphrase; each other needs one, which
// proven says was shown.
func (a *Approver) AddPasskey(c webauthn.Credential, proven bool) error {
	return a.change(false, func(f *approver) error {
		if !proven && (f.Passphrase != "" || len(f.Passkeys) > 0) {
			return fault.With(fmt.Errorf("%w: to add another passkey, a passphrase is needed first", ErrProof), fault.Hint{Action: fault.SetPassphrase})
		}
		if slices.ContainsFunc(f.Passkeys, func(k webauthn.Credential) bool { return bytes.Equal(k.ID, c.ID) }) {
			return fmt.Errorf("%w: that passkey is there already", ErrProof)
		}
		f.Passkeys = append(f.Passkeys, c)
		return nil
	})
}

// UsedPasskey puts the counter of a passkey where it is now; ErrProof when it is no longer there, or another use of it
// was put down meanwhile.
func (a *Approver) UsedPasskey(c webauthn.Credential) error {
	return a.change(false, func(f *approver) error {
		i := slices.IndexFunc(f.Passkeys, func(k webauthn.Credential) bool { return bytes.Equal(k.ID, c.ID) })
		if i < 0 {
			return fmt.Errorf("%w: that passkey is no longer there", ErrProof)
		}
		if was := f.Passkeys[i].Authenticator.SignCount; was > 0 && c.Authenticator.SignCount <= was {
			return fmt.Errorf("%w: that passkey was used meanwhile; approve again", ErrProof)
		}
		f.Passkeys[i] = c
		return nil
	})
}
