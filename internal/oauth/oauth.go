// Package oauth lets clients ask a human for a token (OAuth 2.1, as MCP has it): they find out where, make themselves known, send the
// human's browser to the page, and have a code for secrets, which they renew. Which wishes are valid, whether a code's proof (PKCE) is,
// and how errors are said is the library's to tell; secrets are the ledger's, as those of all tokens.
package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"crypto/rand"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"pixels/internal/fault"
	"pixels/policy/ledger"
)

// The paths.
const (
	resourcePath  = "/.well-known/oauth-protected-resource" // RFC 9728; that of a path is below it
	metadataPath  = "/.well-known/oauth-authorization-server"
	registerPath  = "/oauth/register"
	authorizePath = "/oauth/authorize"
	tokenPath     = "/oauth/token"
	revokePath    = "/oauth/revoke"
)

// Store keeps what lasts. The ledger is one.
type Store interface {
	KeepClient(ledger.Client) error
	Client(id string) (ledger.Client, error)
	Ask(ledger.Authorization) (id string, err error)
	ByCode(code string) (ledger.Authorization, error)
	Redeem(code string) (ledger.SignedIn, error)
	ByRefresh(refresh string) (client, scope string, err error)
	Refresh(refresh string) (ledger.SignedIn, error)
	SignOut(secret, client string) error
}

// Server answers clients.
type Server struct {
	store     Store
	documents *Documents
	page      func(issuer string) string
	served    []string
	library   *op.Provider
}

// New returns a server. page is the address of the page at which humans sign in, for a server's own; served are the paths of what
// tokens are for.
func New(store Store, documents *Documents, page func(issuer string) string, served ...string) (*Server, error) {
	// The library's routes are not used, nor what it knows by itself of issuers and keys.
	library, err := op.NewProvider(&op.Config{CodeMethodS256: true, GrantTypeRefreshToken: true}, storage{store: store}, op.StaticIssuer("https://pixels.invalid"),
		op.WithLogger(slog.New(slog.DiscardHandler)))
	return &Server{store, documents, page, served, library}, err
}

// Route is a path. A browser is sent to one that is for browsers; the others are for programs.
type Route struct {
	Path    string
	Browser bool
	Handler http.Handler
}

// Routes are all of them.
func (s *Server) Routes() (all []Route) {
	add := func(path, method string, browser bool, handle http.HandlerFunc) {
		all = append(all, Route{path, browser, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			if r.Method != method {
				w.Header().Set("Allow", method)
				http.Error(w, method+" it", http.StatusMethodNotAllowed)
				return
			}
			handle(w, r)
		})})
	}
	for _, path := range append(slices.Clone(s.served), "") {
		add(resourcePath+path, http.MethodGet, false, func(w http.ResponseWriter, r *http.Request) { s.resource(w, r, path) })
	}
	add(metadataPath, http.MethodGet, false, s.metadata)
	add(registerPath, http.MethodPost, false, s.register)
	add(authorizePath, http.MethodGet, true, s.authorize)
	add(tokenPath, http.MethodPost, false, s.token)
	add(revokePath, http.MethodPost, false, s.revoke)
	return all
}

// Issuer is the server by the name by which it was called.
func Issuer(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// Challenge is what a client is told that has no token that serves, beside that (RFC 9728).
func Challenge(r *http.Request, path string) string {
	return `resource_metadata="` + Issuer(r) + resourcePath + path + `", scope="` + scopePixels + `"`
}

func answerJSON(w http.ResponseWriter, status int, what any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(what)
}

// resource says which server's tokens serve (RFC 9728). Without a path it speaks of the first.
func (s *Server) resource(w http.ResponseWriter, r *http.Request, path string) {
	if path == "" {
		path = s.served[0]
	}
	issuer := Issuer(r)
	answerJSON(w, http.StatusOK, map[string]any{
		"resource": issuer + path, "resource_name": "Pixels", "authorization_servers": []string{issuer},
		"scopes_supported": []string{scopePixels}, "bearer_methods_supported": []string{"header"},
	})
}

// metadata says what there is (RFC 8414).
func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	issuer := Issuer(r)
	none := []string{string(oidc.AuthMethodNone)}
	answerJSON(w, http.StatusOK, map[string]any{
		"issuer": issuer, "authorization_endpoint": issuer + authorizePath, "token_endpoint": issuer + tokenPath,
		"registration_endpoint": issuer + registerPath, "revocation_endpoint": issuer + revokePath,
		"scopes_supported": []string{scopePixels}, "response_types_supported": []string{"code"}, "response_modes_supported": []string{"query"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token"},
		"token_endpoint_auth_methods_supported":          none,
		"revocation_endpoint_auth_methods_supported":     none,
		"code_challenge_methods_supported":               []string{"S256"},
		"client_id_metadata_document_supported":          true,
		"authorization_response_iss_parameter_supported": true,
	})
}

// register makes a client known (RFC 7591). It is told what it may do: it has no secret, whatever it wished.
func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code, why string) {
		answerJSON(w, status, map[string]string{"error": code, "error_description": why})
	}
	var said described
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxDocument)).Decode(&said); err != nil {
		refuse(http.StatusBadRequest, "invalid_client_metadata", "the body must be a JSON object of at most 16 KiB")
		return
	}
	c, err := said.client()
	if err != nil {
		refuse(http.StatusBadRequest, "invalid_redirect_uri", err.Error())
		return
	}
	c.ID = strings.ToLower(rand.Text())
	switch err := s.store.KeepClient(c); {
	case errors.Is(err, fault.Denied):
		refuse(http.StatusTooManyRequests, "temporarily_unavailable", err.Error())
		return
	case err != nil:
		refuse(http.StatusServiceUnavailable, "temporarily_unavailable", "it can't be kept just now")
		return
	}
	answerJSON(w, http.StatusCreated, map[string]any{
		"client_id": c.ID, "client_id_issued_at": time.Now().Unix(), "client_name": c.Name, "redirect_uris": c.Redirects, "scope": scopePixels,
		"token_endpoint_auth_method": string(oidc.AuthMethodNone), "grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
	})
}

// known is a client; one that has a document is known by what that says now.
func (s *Server) known(ctx context.Context, id string) (ledger.Client, error) {
	c, err := s.store.Client(id)
	if !isDocument(id) || err == nil && time.Since(c.At) < documentLife {
		return c, err
	}
	if c, err = s.documents.Read(ctx, id); err != nil {
		return c, err
	}
	return c, s.store.KeepClient(c)
}

// Response is what a browser brings back to a client.
type Response struct {
	Code        string `schema:"code,omitempty"`
	Error       string `schema:"error,omitempty"`
	Description string `schema:"error_description,omitempty"`
	State       string `schema:"state,omitempty"`
	Issuer      string `schema:"iss"` // RFC 9207: so that a client that asked several servers knows whose code it is
}

// Back is the address to which the browser brings a response.
func Back(a ledger.Authorization, response Response) (string, error) {
	response.State, response.Issuer = a.State, a.Issuer
	return op.AuthResponseURL(a.Redirect, oidc.ResponseTypeCode, oidc.ResponseModeQuery, response, oidc.NewEncoder())
}

// forThis tells whether tokens that are asked for are to be used here (RFC 8707).
func (s *Server) forThis(r *http.Request) bool {
	for _, resource := range r.Form["resource"] {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(resource, "/"), Issuer(r)); !ok || path != "" && !slices.Contains(s.served, path) {
			return false
		}
	}
	return true
}

// plainly tells whether a redirect URI is what it seems: the library looks at one with its escapes undone, and so at another one.
func plainly(uri string, c ledger.Client) bool {
	undone, err := url.QueryUnescape(uri)
	return err == nil && undone == uri || slices.Contains(c.Redirects, uri)
}
