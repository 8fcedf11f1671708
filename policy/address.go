package policy

import (
	"fmt"
	"net/url"
	"strings"
)

// address is one of HTTP or HTTPS.
type address struct{ string }

func (a *address) UnmarshalText(b []byte) error {
	a.string = strings.TrimRight(string(b), "/")
	u, err := url.Parse(a.string)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("%q is no address: write it as https://HOST/PATH", b)
	}
	return nil
}

// Link is where the page shows a request; empty where the policy doesn't say where the page is.
func (s *Set) Link(id string) string {
	if s.page == "" {
		return ""
	}
	return s.page + "/requests/" + url.PathEscape(id)
}

// Webhook is the address that hears of each request; empty where there is none.
func (s *Set) Webhook() string { return s.webhook }
