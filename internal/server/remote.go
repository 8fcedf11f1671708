package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"

	"pixels/internal/fault"
)

// Remote is a server that is reached by HTTP.
type Remote struct {
	URL    string      // as https://host:8765
	Secret string      // of a token
	TLS    *tls.Config // nil trusts whom this machine trusts
}

// Check tells what is wrong about the address, or the secret.
func (r Remote) Check() error {
	u, err := url.Parse(r.URL)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "", strings.Trim(u.Path, "/") != "", u.RawQuery != "", u.User != nil:
		return fault.About(fault.Invalid, fmt.Sprintf("the server %q", r.URL), "is invalid: give its address alone, as https://host:8765")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return fault.About(fault.Invalid, fmt.Sprintf("the server %q", r.URL), "is invalid: by http everybody on the way reads the token; give its https address")
	case r.Secret == "":
		return fault.About(fault.Invalid, "the token", "is missing: give a file with what `token create NAME` prints")
	case r.TLS != nil && u.Scheme != "https":
		return fault.About(fault.Invalid, "a fingerprint", "is invalid for a server that is called by http: give its https address")
	}
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Base is the address without a slash at its end.
func (r Remote) Base() string { return strings.TrimRight(r.URL, "/") }

// Header is what each request has.
func (r Remote) Header() http.Header { return http.Header{"Authorization": {"Bearer " + r.Secret}} }

// Client is how requests are made.
func (r Remote) Client() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = r.TLS
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // a token is for one server
}

// Refused is why a server answers no request of a token's; nil for a status that means something else.
func Refused(status int) error {
	switch status {
	case http.StatusUnauthorized:
		return fault.Errorf(fault.Denied, fault.Hint{}, "the server refuses the token: it was revoked, has expired, or is another server's")
	case http.StatusForbidden:
		return fault.Errorf(fault.Denied, fault.Hint{}, "the server refuses to be called by this name: start it with --name")
	}
	return nil
}

// Dial opens a session with the server.
func (r Remote) Dial(ctx context.Context) (*Client, error) {
	httpClient := r.Client()
	c, err := client.NewStreamableHttpClient(r.Base()+mcpPath, transport.WithHTTPHeaders(map[string]string{"Authorization": r.Header().Get("Authorization")}), transport.WithHTTPBasicClient(httpClient))
	if err == nil {
		err = c.Start(context.WithoutCancel(ctx))
	}
	if err != nil {
		return nil, err
	}
	opened, err := open(ctx, c)
	if err != nil {
		if errors.Is(err, transport.ErrUnauthorized) || errors.Is(err, transport.ErrAuthorizationRequired) {
			err = Refused(http.StatusUnauthorized)
		} else {
			err = r.unreached(err)
		}
		return nil, err
	}
	return opened, nil
}

// unreached is why the server could not be spoken with.
func (r Remote) unreached(err error) error {
	var sent *url.Error
	if errors.As(err, &sent) {
		err = sent.Err
	}
	var unknown *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown) && r.TLS == nil:
		return fmt.Errorf("%s: %w; if it made its certificate itself, give the fingerprint that it printed as --server-cert", r.Base(), err)
	case errors.Is(err, transport.ErrLegacySSEServer):
		return fmt.Errorf("%s does not answer as a server of Pixels; mind http and https, and the port", r.Base())
	}
	return fmt.Errorf("%s: %w", r.Base(), err)
}
