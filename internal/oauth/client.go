package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"pixels/egress"
	"pixels/policy/ledger"
)

// Bounds of what clients say of themselves.
const (
	maxRedirects = 10
	maxRedirect  = 2000 // bytes
	maxName      = 80   // characters
	maxDocument  = 16 << 10
	documentTime = 5 * time.Second
	documentLife = time.Hour // then it is read again
)

// described is what a client says of itself: in its document, or when it registers (RFC 7591).
type described struct {
	ID        string   `json:"client_id,omitempty"`
	Name      string   `json:"client_name,omitempty"`
	Redirects []string `json:"redirect_uris"`
	Method    string   `json:"token_endpoint_auth_method,omitempty"`
	Secret    string   `json:"client_secret,omitempty"`
}

// client checks what is said, and keeps of it what serves.
func (d described) client() (c ledger.Client, err error) {
	if len(d.Redirects) == 0 || len(d.Redirects) > maxRedirects {
		return c, fmt.Errorf("redirect_uris: give 1 to %d", maxRedirects)
	}
	for _, text := range d.Redirects {
		if err := checkRedirect(text); err != nil {
			return c, fmt.Errorf("redirect_uris: %.100q: %w", text, err)
		}
	}
	// Characters that turn the direction of writing, or show nothing, could have the page say something else.
	name := []rune(strings.Join(strings.FieldsFunc(d.Name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " "))
	return ledger.Client{Name: string(name[:min(len(name), maxName)]), Redirects: d.Redirects}, nil
}

// scheme is that of an app on the human's own machine.
var scheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]+$`)

// checkRedirect checks where a browser is to go with a code: to a site by HTTPS, to a program on its own machine, or to an app.
func checkRedirect(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || len(text) > maxRedirect:
		return errors.New("is no URL")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return errors.New("may have no fragment")
	case u.User != nil:
		return errors.New("may have no user")
	case u.Scheme == "https" && u.Host != "":
	case u.Scheme == "http":
		if _, here := op.HTTPLoopbackOrLocalhost(text); !here {
			return errors.New("must be https, or of the machine of the browser (127.0.0.1, localhost)")
		}
	case !scheme.MatchString(u.Scheme) || slices.Contains([]string{"https", "javascript", "data", "vbscript", "file", "blob", "about", "filesystem", "view-source", "ws", "wss", "ftp", "mailto", "tel"}, u.Scheme):
		return errors.New("must be https, or of the machine of the browser, or of an app's own scheme")
	}
	return nil
}

// isDocument tells whether a client's ID is the address of its document.
func isDocument(id string) bool { return strings.HasPrefix(id, "https://") }

// Documents reads the documents of clients.
type Documents struct {
	client *http.Client
	turns  chan struct{} // taken while one is read: anybody may ask for that
}

// documentsAtOnce is how many are read at once.
const documentsAtOnce = 4

// NewDocuments returns what reads documents by HTTPS from addresses of the internet, and nowhere else.
func NewDocuments() *Documents { return newDocuments(egress.Public, &http.Transport{}) }

func newDocuments(public func(netip.Addr) bool, t *http.Transport) *Documents {
	dialer := &net.Dialer{Timeout: documentTime, Control: func(_, address string, _ syscall.RawConn) error {
		// Looked at here, the name can't lead elsewhere meanwhile.
		if to, err := netip.ParseAddrPort(address); err != nil || !public(to.Addr().Unmap()) {
			return errors.New("it leads to an address that is not the internet's")
		}
		return nil
	}}
	t.Proxy = nil
	t.DisableKeepAlives = true
	t.MaxResponseHeaderBytes = maxDocument
	t.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp4", address)
	}
	return &Documents{turns: make(chan struct{}, documentsAtOnce), client: &http.Client{
		Transport: t, Timeout: documentTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Read reads the document at a client's ID, as the draft on Client ID Metadata Documents of OAuth describes it.
func (d *Documents) Read(ctx context.Context, id string) (c ledger.Client, err error) {
	u, err := url.Parse(id)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || strings.Contains(id, "#"):
		return c, errors.New("a client's ID that is a URL is one of HTTPS, without user and fragment")
	case u.Path == "" || u.Path == "/" || path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/"):
		return c, errors.New("a client's ID that is a URL has a path, without dots")
	}
	select {
	case d.turns <- struct{}{}:
		defer func() { <-d.turns }()
	default:
		return c, errors.New("too many clients' documents are being read: try again in a moment")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, id, nil)
	if err != nil {
		return c, err
	}
	request.Header.Set("Accept", "application/json")
	answer, err := d.client.Do(request)
	if err != nil {
		return c, fmt.Errorf("read the client's document: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return c, fmt.Errorf("read the client's document: its server says %d", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	switch {
	case err != nil:
		return c, fmt.Errorf("read the client's document: %w", err)
	case len(body) > maxDocument:
		return c, fmt.Errorf("the client's document is longer than %d bytes", maxDocument)
	}
	var said described
	if err := json.Unmarshal(body, &said); err != nil {
		return c, errors.New("the client's document is no JSON object of a client")
	}
	if said.ID != id {
		return c, fmt.Errorf("the client's document is of another client_id, %.100q", said.ID)
	}
	if said.Secret != "" || said.Method != "" && said.Method != string(oidc.AuthMethodNone) {
		return c, errors.New("the client's document wants a secret: here clients are public ones, which use PKCE (token_endpoint_auth_method none)")
	}
	c, err = said.client()
	c.ID = id
	if c.Name == "" {
		c.Name = u.Host
	}
	return c, err
}
