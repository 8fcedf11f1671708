package oauth

import (
	"context"
	"errors"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"pixels/policy/ledger"
)

// scopePixels is the only scope. What a client may do is what the human chose.
const scopePixels = "pixels"

// storage is what the library looks up. What it does not is not there: see Server for what is asked of it.
type storage struct {
	op.Storage
	store Store
}

func (s storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	c, err := s.store.Client(id)
	if errors.Is(err, ledger.ErrClient) {
		return nil, oidc.ErrInvalidClient().WithDescription("this client is not known: register it anew").WithParent(err)
	}
	return client{c}, err
}

func (s storage) AuthorizeClientIDSecret(context.Context, string, string) error {
	return errors.New("clients have no secrets here")
}

func (s storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	a, err := s.store.ByCode(code)
	return authorization{a}, err
}

func (s storage) TokenRequestByRefreshToken(_ context.Context, refresh string) (op.RefreshTokenRequest, error) {
	client, scope, err := s.store.ByRefresh(refresh)
	return &renewal{client: client, scope: scope}, err
}

// client is one to the library: a program of a human's, which can keep no secret of its own from them.
type client struct{ ledger.Client }

func (c client) GetID() string                      { return c.ID }
func (c client) RedirectURIs() []string             { return c.Redirects }
func (client) PostLogoutRedirectURIs() []string     { return nil }
func (client) ApplicationType() op.ApplicationType  { return op.ApplicationTypeNative }
func (client) AuthMethod() oidc.AuthMethod          { return oidc.AuthMethodNone }
func (client) ResponseTypes() []oidc.ResponseType   { return []oidc.ResponseType{oidc.ResponseTypeCode} }
func (client) LoginURL(string) string               { return "" }
func (client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (client) IDTokenLifetime() time.Duration       { return 0 }
func (client) DevMode() bool                        { return false }
func (client) IsScopeAllowed(scope string) bool     { return scope == scopePixels }
func (client) IDTokenUserinfoClaimsAssertion() bool { return false }
func (client) ClockSkew() time.Duration             { return 0 }
func (client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}
func (client) RestrictAdditionalIdTokenScopes() func([]string) []string     { return asked }
func (client) RestrictAdditionalAccessTokenScopes() func([]string) []string { return asked }

func asked(scopes []string) []string { return scopes }

// authorization is a wish that was granted, to the library.
type authorization struct{ ledger.Authorization }

func (a authorization) GetID() string                    { return a.ID }
func (authorization) GetACR() string                     { return "" }
func (authorization) GetAMR() []string                   { return nil }
func (authorization) GetAudience() []string              { return nil }
func (authorization) GetAuthTime() time.Time             { return time.Time{} }
func (a authorization) GetClientID() string              { return a.Client }
func (authorization) GetNonce() string                   { return "" }
func (a authorization) GetRedirectURI() string           { return a.Redirect }
func (authorization) GetResponseType() oidc.ResponseType { return oidc.ResponseTypeCode }
func (authorization) GetResponseMode() oidc.ResponseMode { return oidc.ResponseModeQuery }
func (a authorization) GetScopes() []string              { return []string{a.Scope} }
func (a authorization) GetState() string                 { return a.State }
func (a authorization) GetSubject() string               { return a.Token }
func (a authorization) Done() bool                       { return a.Token != "" }
func (a authorization) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: a.Challenge, Method: oidc.CodeChallengeMethodS256}
}

// renewal is a refresh token to the library.
type renewal struct{ client, scope string }

func (*renewal) GetAMR() []string          { return nil }
func (*renewal) GetAudience() []string     { return nil }
func (*renewal) GetAuthTime() time.Time    { return time.Time{} }
func (r *renewal) GetClientID() string     { return r.client }
func (r *renewal) GetScopes() []string     { return []string{r.scope} }
func (*renewal) GetSubject() string        { return "" }
func (*renewal) SetCurrentScopes([]string) {} // there is one
