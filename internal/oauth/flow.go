package oauth

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"pixels/internal/fault"
	"pixels/policy/ledger"
)

const (
	maxState = 4 << 10 // bytes
	noSecret = "clients have no secret here: give client_id in the form"
)

// challenge is what S256 makes of a verifier (RFC 7636).
var challenge = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// authorize takes a client's wish, and sends the human's browser to the page. Where it can't be told whether the client is who it says,
// the browser stays here: it must not be sent to wherever somebody says.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	r.Body = http.NoBody
	wish, err := op.ParseAuthorizeRequest(r, s.library.Decoder())
	if err != nil || wish.ClientID == "" {
		http.Error(w, "a client asks for a token with client_id, redirect_uri, response_type, state and code_challenge: begin in the client", http.StatusBadRequest)
		return
	}
	c, err := s.known(r.Context(), wish.ClientID)
	switch {
	case errors.Is(err, ledger.ErrClient):
		http.Error(w, "this client is not known here (any more): have it register anew, as by signing out and in again", http.StatusBadRequest)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a := ledger.Authorization{Client: c.ID, ClientName: c.Name, Redirect: wish.RedirectURI, State: wish.State, Challenge: wish.CodeChallenge, Issuer: Issuer(r), Scope: scopePixels}
	refuse := func(code, why string) {
		to, err := Back(a, Response{Error: code, Description: why})
		if err != nil {
			http.Error(w, why, http.StatusBadRequest)
			return
		}
		http.Redirect(w, r, to, http.StatusFound)
	}
	// Nobody is known by an ID token here, and a client that asks for no scope asks for the only one.
	wish.IDTokenHint, wish.Scopes = "", []string{scopePixels}
	_, err = op.ValidateAuthRequestClient(r.Context(), wish, client{c}, nil)
	var known *oidc.Error
	switch {
	case errors.As(err, &known) && known.IsRedirectDisabled(), !plainly(wish.RedirectURI, c):
		http.Error(w, "the client wants the answer at an address that it did not register", http.StatusBadRequest)
	case errors.As(err, &known):
		refuse(string(known.ErrorType), known.Description)
	case err != nil:
		refuse("server_error", "it can't be looked at just now")
	case wish.RequestParam != "":
		refuse("request_not_supported", "give the parameters themselves")
	case wish.ResponseMode != "" && wish.ResponseMode != oidc.ResponseModeQuery:
		refuse("invalid_request", "response_mode: the answer comes as a query")
	case wish.CodeChallengeMethod != oidc.CodeChallengeMethodS256 || !challenge.MatchString(wish.CodeChallenge):
		refuse("invalid_request", "PKCE is needed: code_challenge, with code_challenge_method S256")
	case len(wish.State) > maxState:
		http.Error(w, "the state is too long", http.StatusBadRequest)
	case !s.forThis(r):
		refuse("invalid_target", "resource: tokens of this server serve at "+Issuer(r)+s.served[0])
	case len(wish.Prompt) > 0 && wish.Prompt[0] == oidc.PromptNone:
		refuse("interaction_required", "a human decides each time")
	default:
		id, err := s.store.Ask(a)
		if errors.Is(err, fault.Denied) {
			refuse("temporarily_unavailable", err.Error())
			return
		}
		if err != nil {
			refuse("server_error", "it can't be kept just now")
			return
		}
		http.Redirect(w, r, s.page(Issuer(r))+"/connect/"+url.PathEscape(id), http.StatusFound)
	}
}

// refused says what is wrong with what a client posted, as the library does. What the ledger says of a secret is always the same.
func (s *Server) refused(w http.ResponseWriter, r *http.Request, err error) {
	var known *oidc.Error
	switch {
	case errors.Is(err, ledger.ErrReused):
		err = oidc.ErrInvalidGrant().WithDescription("it was used already: ask the human again")
	case errors.Is(err, ledger.ErrToken), errors.Is(err, ledger.ErrAuthorization):
		err = oidc.ErrInvalidGrant().WithDescription("it has ended, or never was: ask the human again")
	case !errors.As(err, &known):
		answerJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "temporarily_unavailable", "error_description": "it can't be looked up just now"})
		return
	}
	op.RequestError(w, r, err, s.library.Logger())
}

// posted reads the form of a client that posts. One in the address would be in logs.
func (s *Server) posted(w http.ResponseWriter, r *http.Request) bool {
	r.URL.RawQuery = ""
	if _, _, ok := r.BasicAuth(); ok {
		s.refused(w, r, oidc.ErrInvalidClient().WithDescription(noSecret))
		return false
	}
	if err := r.ParseForm(); err != nil {
		s.refused(w, r, oidc.ErrInvalidRequest().WithDescription("the body must be a form"))
		return false
	}
	for name, values := range r.PostForm {
		if len(values) > 1 && name != "resource" {
			s.refused(w, r, oidc.ErrInvalidRequest().WithDescription("%s is there twice", name))
			return false
		}
	}
	if !s.forThis(r) {
		answerJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_target", "error_description": "resource: tokens of this server serve here alone"})
		return false
	}
	return true
}

// token gives secrets for a code, or for a refresh token.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	if !s.posted(w, r) {
		return
	}
	var in ledger.SignedIn
	var err error
	switch grant := oidc.GrantType(r.PostForm.Get("grant_type")); grant {
	case oidc.GrantTypeCode:
		in, err = s.byCode(r)
	case oidc.GrantTypeRefreshToken:
		in, err = s.byRefresh(r)
	case "":
		err = oidc.ErrInvalidRequest().WithDescription("grant_type is missing")
	default:
		err = oidc.ErrUnsupportedGrantType().WithDescription("use authorization_code or refresh_token")
	}
	if err != nil {
		s.refused(w, r, err)
		return
	}
	w.Header().Set("Pragma", "no-cache")
	answerJSON(w, http.StatusOK, oidc.AccessTokenResponse{
		AccessToken: in.Access, TokenType: oidc.BearerToken, RefreshToken: in.Refresh, ExpiresIn: uint64(max(0, time.Until(in.AccessEnds).Seconds())), Scope: []string{scopePixels},
	})
}

func (s *Server) byCode(r *http.Request) (in ledger.SignedIn, err error) {
	asked, err := op.ParseAccessTokenRequest(r, s.library.Decoder())
	if err != nil {
		return in, err
	}
	if asked.Code == "" || asked.ClientID == "" {
		return in, oidc.ErrInvalidRequest().WithDescription("code and client_id are needed")
	}
	if _, _, err := op.ValidateAccessTokenRequest(r.Context(), asked, s.library); err != nil {
		return in, err
	}
	return s.store.Redeem(asked.Code)
}

func (s *Server) byRefresh(r *http.Request) (in ledger.SignedIn, err error) {
	asked, err := op.ParseRefreshTokenRequest(r, s.library.Decoder())
	if err != nil {
		return in, err
	}
	asked.Scopes = nil // there is one
	if _, _, err := op.ValidateRefreshTokenRequest(r.Context(), asked, s.library); err != nil {
		return in, err
	}
	return s.store.Refresh(asked.RefreshToken)
}

// revoke signs a client out (RFC 7009), whichever of its secrets it shows. What is nobody's is revoked already.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	if !s.posted(w, r) {
		return
	}
	secret, _, id, err := op.ParseTokenRevocationRequest(r, s.library)
	if err == nil && strings.TrimSpace(secret) == "" {
		err = oidc.ErrInvalidRequest().WithDescription("token is missing")
	}
	if err == nil {
		err = s.store.SignOut(secret, id)
	}
	if err != nil {
		s.refused(w, r, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}
