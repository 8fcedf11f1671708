// Package web is the page on which a human decides what agents may reach, and sees what they did. It has a listener and a
// token of its own, which no MCP client is told.
package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"pixels/internal/program"
	"pixels/sandbox/manager"
)

//go:embed templates static
var files embed.FS

// Server serves the page.
type Server struct {
	human    *manager.Human
	token    [sha256.Size]byte
	hosts    []string // names that the page may be called by
	pages    *template.Template
	sessions sessions
	tries    tries
	handler  http.Handler
	log      func(error)
}

// New returns a server of the page for who knows a token. hosts are the names, with ports, that browsers may call it by
// beside that of the listener; log hears of what failed.
func New(human *manager.Human, token string, hosts []string, log func(error)) (*Server, error) {
	if len(token) < 20 {
		return nil, errors.New("the token of the page is too short")
	}
	s := &Server{human: human, token: sha256.Sum256([]byte(token)), hosts: hosts, log: log}
	var err error
	if s.pages, err = template.New("").Funcs(functions).ParseFS(files, "templates/*.html"); err != nil {
		return nil, err
	}
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(static)))
	mux.HandleFunc("POST /login", s.login)
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request, *session){
		"GET /{$}": s.showRequests, "GET /requests/{id}": s.showRequest, "POST /requests/{id}/approve": s.approve, "POST /requests/{id}/deny": s.deny,
		"GET /sandboxes": s.showSandboxes, "GET /grants": s.showGrants, "POST /grants/revoke": s.revoke, "GET /tokens": s.showTokens, "POST /tokens/revoke": s.revokeToken, "POST /tokens/destroy": s.revokeToken, "GET /connect/{id}": s.showConnect, "POST /connect/{id}": s.connect, "POST /connect/{id}/decline": s.decline, "POST /panic": s.panic, "GET /audit": s.showAudit, "GET /events": s.events, "POST /requests/{id}/challenge": s.challenge,
		"GET /passkeys": s.showPasskeys, "POST /passkeys/begin": s.beginPasskey, "POST /passkeys": s.finishPasskey, "POST /logout": s.logout,
	} {
		mux.HandleFunc(pattern, s.signedIn(handle))
	}
	s.handler = s.guard(http.NewCrossOriginProtection().Handler(mux))
	return s, nil
}

// Handler is the page for who serves other things at the same address.
func (s *Server) Handler(at net.Addr) http.Handler {
	s.hosts = append(slices.Clone(s.hosts), names(at)...)
	return s.handler
}

// Serve serves the page on a listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.Handler(l.Addr()), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, // and the streams of events end with it
	}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if server.Shutdown(end) != nil {
			_ = server.Close()
		}
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// names are those by which a browser on this machine calls a listener.
func names(a net.Addr) (out []string) {
	if a == nil {
		return nil
	}
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return nil
	}
	out = []string{a.String()}
	if ip := net.ParseIP(host); ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		out = append(out, "localhost:"+port, "127.0.0.1:"+port, "[::1]:"+port)
	}
	return out
}

// guard refuses calls by other names than the page's own, which is how a foreign site that points its name at this machine
// comes (DNS rebinding), and says what the page may do in the browser.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Frame-Options", "DENY")
		if !strings.HasPrefix(r.URL.Path, "/static/") {
			h.Set("Cache-Control", "no-store")
		}
		if !slices.ContainsFunc(s.hosts, func(name string) bool { return strings.EqualFold(name, r.Host) }) {
			http.Error(w, fmt.Sprintf("this page is not to be called by the name %q; give `"+program.Name+" web --name` if it is yours", r.Host), http.StatusMisdirectedRequest)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		next.ServeHTTP(w, r)
	})
}

// right tells, in a time that says nothing, whether a token is the page's.
func (s *Server) right(token string) bool {
	given := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(given[:], s.token[:]) == 1
}

// render writes a page.
func (s *Server) render(w http.ResponseWriter, status int, name string, data any) {
	var b strings.Builder
	if err := s.pages.ExecuteTemplate(&b, name, data); err != nil {
		s.log(fmt.Errorf("page %s: %w", name, err))
		http.Error(w, "this page could not be made; the server's log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(b.String()))
}
