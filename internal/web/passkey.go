package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"pixels/internal/program"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/approver"
	"pixels/sandbox/manager"
)

// ceremonyTime is how long a human may take to touch their key.
const ceremonyTime = 2 * time.Minute

// ceremony is one use of a passkey that was begun: an approval, or the making of a key.
type ceremony struct {
	data    webauthn.SessionData
	digest  [sha256.Size]byte // of what is approved
	proven  bool              // by the passphrase, of a key that is made
	expires time.Time
}

// digest is of an approval, with all that it decides: what the human saw is what the key signs for.
func digest(a manager.Approval, rule string) [sha256.Size]byte {
	b, _ := json.Marshal([]string{a.ID, rule, string(a.Scope), a.For.String(), a.Answer, a.Seen}) // strings can be written
	return sha256.Sum256(b)
}

// relyingParty is the page as WebAuthn knows it. It has a name, for an address can't have keys.
func relyingParty(r *http.Request) (*webauthn.WebAuthn, error) {
	host := r.Host
	if h, _, err := net.SplitHostPort(r.Host); err == nil {
		host = h
	}
	if net.ParseIP(strings.Trim(host, "[]")) != nil {
		return nil, fmt.Errorf("browsers keep no passkeys for an address: open the page by a name, such as http://localhost%s", strings.TrimPrefix(r.Host, host))
	}
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	return webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: "Pixels", RPOrigins: []string{scheme + "://" + r.Host},
		AuthenticatorSelection: protocol.AuthenticatorSelection{ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationRequired},
	})
}

// parties are both sides of a ceremony: the page, and the human.
func (s *Server) parties(r *http.Request) (*webauthn.WebAuthn, *approver.User, error) {
	party, err := relyingParty(r)
	if err != nil {
		return nil, nil, err
	}
	user, err := s.human.Approver().User()
	return party, user, err
}

func (s *Server) showPasskeys(w http.ResponseWriter, r *http.Request, _ *session) {
	p := passkeysPage{page: page{Title: "Passkeys", Open: s.open()}, Level: s.human.Approval()}
	var err error
	if p.Passphrase, p.Count, err = s.human.Approver().Set(); err != nil {
		s.failed(w, &p.page, err)
		return
	}
	if _, err := relyingParty(r); err != nil {
		p.Why = err.Error()
	}
	s.render(w, http.StatusOK, "passkeys.html", p)
}

type passkeysPage struct {
	page
	Level      policy.Approval
	Passphrase bool
	Count      int
	Why        string // there can be none here
}

// beginPasskey begins to make a key. Where there is a passphrase, it is wanted for that; where there are keys and none,
// another one can only be added after the file that has them was removed by hand.
func (s *Server) beginPasskey(w http.ResponseWriter, r *http.Request, mine *session) {
	options, err := func() (*protocol.CredentialCreation, error) {
		set, keys, err := s.human.Approver().Set()
		switch {
		case err != nil:
			return nil, err
		case set:
			err := s.tries.check(r, mine, func() error { return s.human.Approver().CheckPassphrase(r.PostFormValue("passphrase")) })
			if err != nil {
				return nil, err
			}
		case keys > 0:
			return nil, fmt.Errorf("%w: to add another passkey, set a passphrase first (`"+program.Name+" approval passphrase`)", approver.ErrProof)
		}
		party, err := relyingParty(r)
		if err != nil {
			return nil, err
		}
		id := make([]byte, 64)
		_, _ = rand.Read(id) // never fails
		if err := s.human.Approver().Enrol(id); err != nil {
			return nil, err
		}
		user, err := s.human.Approver().User()
		if err != nil {
			return nil, err
		}
		options, data, err := party.BeginRegistration(user, webauthn.WithExclusions(webauthn.Credentials(user.WebAuthnCredentials()).CredentialDescriptors()))
		if err != nil {
			return nil, err
		}
		s.sessions.begun(mine, &ceremony{data: *data, proven: set, expires: time.Now().Add(ceremonyTime)})
		return options, nil
	}()
	s.json(w, options, err)
}

func (s *Server) finishPasskey(w http.ResponseWriter, r *http.Request, mine *session) {
	err := func() error {
		c := s.sessions.take(mine)
		if c == nil {
			return fmt.Errorf("%w: it took too long, or was begun elsewhere; begin again", approver.ErrProof)
		}
		party, user, err := s.parties(r)
		if err != nil {
			return err
		}
		parsed, err := protocol.ParseCredentialCreationResponseBytes([]byte(r.PostFormValue("credential")))
		if err != nil {
			return fmt.Errorf("%w: %w", approver.ErrProof, err)
		}
		made, err := party.CreateCredential(user, c.data, parsed)
		if err != nil {
			return fmt.Errorf("%w: %w", approver.ErrProof, err)
		}
		return s.human.Approver().AddPasskey(*made, c.proven)
	}()
	s.answer(w, "The passkey is kept. Approvals want it once the policy has approval = \"passkey\".", err)
}

// challenge begins an approval by passkey: what the key signs is made of all that the approval decides.
func (s *Server) challenge(w http.ResponseWriter, r *http.Request, mine *session) {
	options, err := func() (*protocol.CredentialAssertion, error) {
		a, rule, err := s.approval(r)
		if err == nil {
			err = s.weighed(r, a)
		}
		if err != nil {
			return nil, err
		}
		party, user, err := s.parties(r)
		if err != nil {
			return nil, err
		}
		if len(user.WebAuthnCredentials()) == 0 {
			return nil, fmt.Errorf("%w: add a passkey on the page Passkeys", approver.ErrNoProofYet)
		}
		what := digest(a, rule)
		nonce := make([]byte, 32)
		_, _ = rand.Read(nonce) // never fails
		signed := sha256.Sum256(append(nonce, what[:]...))
		options, data, err := party.BeginLogin(user, webauthn.WithUserVerification(protocol.VerificationRequired), webauthn.WithChallenge(signed[:]))
		if err != nil {
			return nil, err
		}
		s.sessions.begun(mine, &ceremony{data: *data, digest: what, expires: time.Now().Add(ceremonyTime)})
		return options, nil
	}()
	s.json(w, options, err)
}

// signed checks that an approval was signed for by a passkey.
func (s *Server) signed(r *http.Request, mine *session, a manager.Approval, rule string) error {
	c := s.sessions.take(mine)
	if c == nil || c.digest != digest(a, rule) {
		return fmt.Errorf("%w: what was signed is not what is approved, or it took too long; approve again", approver.ErrProof)
	}
	party, user, err := s.parties(r)
	if err != nil {
		return err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(r.PostFormValue("assertion")))
	if err != nil {
		return fmt.Errorf("%w: %w", approver.ErrProof, err)
	}
	used, err := party.ValidateLogin(user, c.data, parsed)
	if err != nil {
		return fmt.Errorf("%w: %w", approver.ErrProof, err)
	}
	if used.Authenticator.CloneWarning {
		return fmt.Errorf("%w: that passkey seems to be a copy, for its counter went back", approver.ErrProof)
	}
	return s.human.Approver().UsedPasskey(*used)
}

// json answers a script.
func (s *Server) json(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, view.Error(err, view.Page), statusOf(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
