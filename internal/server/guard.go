package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"pixels/internal/oauth"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// maxBody is how long the body of a request may be.
const maxBody = 8 << 20

// identity is who makes a request by a token.
type identity struct {
	key  key
	over context.Context // ends with the token

	hold func() (over context.Context, done func()) // uses the token on, for what outlasts the request
}

type identityKey struct{}

// identityOf is who makes the request of a context; that of nobody where it came by no token.
func identityOf(ctx context.Context) identity {
	who, _ := ctx.Value(identityKey{}).(identity)
	return who
}

// access says who may use a route.
type access int

const (
	anybody access = iota
	browser        // of anybody, whom any site may send here
	holder         // of a token
	scraper        // who has the token of the metrics
)

// guard lets a request pass that another site's page did not send, to a name that is ours, by who may use the route, and not too long.
func (h *HTTP) guard(who access, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.ours(r) {
			h.refuse(w, http.StatusForbidden, "this server does not go by that name (Host): call it by its address, or start it with --name")
			return
		}
		if !sameOrigin(r) && (who != browser || !isSent(r)) {
			h.refuse(w, http.StatusForbidden, "a page of another site may not call this server (Origin)")
			return
		}
		switch secret := bearer(r); who {
		case scraper:
			if !same(secret, h.config.Metrics) {
				h.unauthorized(w, r, who, secret != "")
				return
			}
		case holder:
			caps, k, over, done, err := h.holders.begin(secret)
			switch {
			case errors.Is(err, ledger.ErrToken):
				h.unauthorized(w, r, who, secret != "")
				return
			case err != nil:
				h.config.Log.Error().Err(err).Msg("look up a token")
				h.refuse(w, http.StatusServiceUnavailable, "tokens can't be looked up just now; the server's log says why")
				return
			}
			defer done()
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(over, cancel)()
			ctx = context.WithValue(ctx, callerKey{}, manager.Caller{Owner: caps.Holder, Caps: caps})
			r = r.WithContext(context.WithValue(ctx, identityKey{}, identity{k, over, func() (context.Context, func()) { return h.holders.hold(secret) }}))
		}
		if !h.readWhole(w, r) {
			return
		}
		next.ServeHTTP(noCORS{w}, r)
	})
}

func (h *HTTP) refuse(w http.ResponseWriter, status int, why string) {
	h.meters.refused(status)
	http.Error(w, why, status)
}

func (h *HTTP) unauthorized(w http.ResponseWriter, r *http.Request, who access, given bool) {
	challenge := `Bearer realm="pixels"`
	if h.config.OAuth != nil && who == holder {
		path := r.URL.Path
		if !slices.Contains(Spoken, path) {
			path = Spoken[0]
		}
		challenge += ", " + oauth.Challenge(r, path)
	}
	if given {
		challenge += `, error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	h.refuse(w, http.StatusUnauthorized, "this server wants the token that `token create NAME` makes, as the header Authorization: Bearer TOKEN; it may have been revoked, or expired")
}

// readWhole reads the body of a request, as far as it may be long.
func (h *HTTP) readWhole(w http.ResponseWriter, r *http.Request) bool {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return true
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		h.refuse(w, http.StatusRequestEntityTooLarge, "the body is longer than 8 MiB")
	case err != nil:
		h.refuse(w, http.StatusBadRequest, "the body broke off")
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return err == nil
}

// ours tells whether a request names this server: by an address of this machine, by localhost on it, or by a name that it was given. So no
// other name can be pointed here, to have a browser call it (DNS rebinding).
func (h *HTTP) ours(r *http.Request) bool {
	host := strings.TrimSuffix(strings.ToLower(hostOf(r.Host)), ".")
	if slices.Contains(h.config.Names, host) {
		return true
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	switch {
	case local == nil:
		return false
	case local.Network() == "unix": // where no browser comes
		return true
	}
	at, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return false
	}
	here := at.Addr().Unmap()
	if host == "localhost" {
		return here.IsLoopback()
	}
	named, err := netip.ParseAddr(host)
	return err == nil && (named.Unmap() == here || named.IsLoopback() && here.IsLoopback())
}

func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	return strings.Trim(host, "[]")
}

// sameOrigin tells whether a request comes from no page, or from one of this server.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return false
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	for _, origin := range r.Header.Values("Origin") {
		if origin != scheme+"://"+r.Host {
			return false
		}
	}
	return true
}

// isSent tells whether a browser was sent here by a link, or by a redirect, to show what it gets: the page that did so sees nothing of it.
func isSent(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// noCORS opens nothing to pages of other sites, whatever the SDK says.
type noCORS struct{ http.ResponseWriter }

func (w noCORS) clean() {
	for name := range w.Header() {
		if strings.HasPrefix(name, "Access-Control-") {
			w.Header().Del(name)
		}
	}
}

func (w noCORS) WriteHeader(status int) {
	w.clean()
	w.ResponseWriter.WriteHeader(status)
}

func (w noCORS) Write(b []byte) (int, error) {
	w.clean()
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w noCORS) Flush() {
	w.clean()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker.
func (w noCORS) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap serves http.ResponseController.
func (w noCORS) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// bearer is the secret that a request has in its header; empty where it has none.
func bearer(r *http.Request) string {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(secret)
}

// same compares secrets in a time that says nothing.
func same(a, b string) bool {
	x, y := keyOf(a), keyOf(b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
