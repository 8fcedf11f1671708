package egress

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestRulesAreReadInEveryForm(t *testing.T) {
	for text, want := range map[string]string{
		"example.com":                        "example.com",
		" Example.COM. ":                     "example.com",
		"*.Example.com":                      "*.example.com",
		"example.com:443":                    "example.com:443",
		"example.com:443,80":                 "example.com",
		"example.com:80-81,82,443,90-100":    "example.com:80-82,90-100,443",
		"example.com:*":                      "example.com:*",
		"bücher.example":                     "xn--bcher-kva.example",
		"xn--bcher-kva.example":              "xn--bcher-kva.example",
		"_srv.example.com":                   "_srv.example.com",
		"*.a.b.co.uk":                        "*.a.b.co.uk",
		"10.1.2.0/24":                        "10.1.2.0/24",
		"10.1.2.3/32:5432":                   "10.1.2.3/32:5432",
		"example。com":                        "example.com",
		"straße.example":                     "xn--strae-oqa.example",
		strings.Repeat("a", 63) + ".example": strings.Repeat("a", 63) + ".example",
	} {
		rule, err := ParseRule(text)
		if err != nil || rule.String() != want {
			t.Errorf("%q is read as %q (%v), not %q", text, rule, err, want)
		}
		again, err := ParseRule(rule.String())
		if err != nil || !again.Equal(rule) {
			t.Errorf("%q is read back as %q (%v)", rule, again, err)
		}
	}
}

func TestWhatIsNoRuleSaysWhatToWrite(t *testing.T) {
	for text, says := range map[string]string{
		"":                                   "1 to 253",
		"example":                            "example.com",
		"exa mple.com":                       "can't be a part",
		"-a.example.com":                     "is no domain name",
		"a..example.com":                     "can't be a part",
		"*.com":                              "anyone can have a name below com",
		"*.co.uk":                            "anyone",
		"*.github.io":                        "anyone",
		"*":                                  "may only stand for",
		"a.*.example.com":                    "may only stand for",
		"a*.example.com":                     "may only stand for",
		"*.*.example.com":                    "may only stand for",
		"1.2.3.4":                            "1.2.3.4/32",
		"1.2.3.4:80":                         "1.2.3.4/32",
		"::1":                                "IPv4",
		"[2001:db8::1]:443":                  "IPv4",
		"2001:db8::/32":                      "IPv4",
		"1.2.3":                              "number",
		"0x7f.1":                             "number",
		"10.0.0.1/24":                        "write 10.0.0.0/24",
		"0.0.0.0/0":                          "unrestricted",
		"10.0.0.0/33":                        "looks like",
		"example.com:0":                      "1 to 65535",
		"example.com:65536":                  "1 to 65535",
		"example.com:-1":                     "1 to 65535",
		"example.com:90-80":                  "1 to 65535",
		"example.com:":                       "1 to 65535",
		"example.com:http":                   "1 to 65535",
		"https://example.com/":               "URL",
		"example.com/path":                   "looks like",
		strings.Repeat("a.", 200) + "com":    "253",
		strings.Repeat("a", 64) + ".example": "can't be a part",
		"a\x00.example.com":                  "can't be a part",
	} {
		rule, err := ParseRule(text)
		if !errors.Is(err, ErrRule) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is read as %q (%v); the error should say %q", text, rule, err, says)
		}
	}
	if _, err := ParseDomainRule("10.0.0.0/8"); !errors.Is(err, ErrRule) || !strings.Contains(err.Error(), "human") {
		t.Errorf("a range where a domain is meant: %v", err)
	}
}

func TestARuleCoversExactlyItsNames(t *testing.T) {
	for _, c := range []struct {
		rule, name string
		port       uint16
		want       bool
	}{
		{"example.com", "example.com", 443, true}, {"example.com", "example.com", 80, true}, {"example.com", "example.com", 22, false},
		{"example.com", "a.example.com", 443, false}, {"example.com", "evilexample.com", 443, false},
		{"*.example.com", "example.com", 443, false}, {"*.example.com", "a.example.com", 443, true},
		{"*.example.com", "a.b.example.com", 443, true}, {"*.example.com", "evilexample.com", 443, false},
		{"*.example.com", ".example.com", 443, false}, {"*.example.com", "example.com.evil.com", 443, false},
		{"example.com:8000-8010", "example.com", 8005, true}, {"example.com:8000-8010", "example.com", 8011, false},
		{"10.0.0.0/8", "10.0.0.1", 443, false},
	} {
		rule, err := ParseRule(c.rule)
		if err != nil {
			t.Fatal(err)
		}
		if got := rule.Covers(c.name, c.port); got != c.want {
			t.Errorf("%s covers %s:%d: %v", c.rule, c.name, c.port, got)
		}
	}
	cidr, _ := ParseRule("10.1.0.0/16:5432")
	for addr, want := range map[string]bool{"10.1.2.3": true, "10.2.0.1": false, "::ffff:10.1.2.3": false} {
		if got := cidr.CoversAddress(netip.MustParseAddr(addr), 5432); got != want {
			t.Errorf("%s covers %s: %v", cidr, addr, got)
		}
	}
	if cidr.CoversAddress(netip.MustParseAddr("10.1.2.3"), 5433) {
		t.Error("a rule covers a port that it does not name")
	}
}

func FuzzRule(f *testing.F) {
	for _, s := range []string{"example.com", "*.example.com:80-90,443", "10.0.0.0/8:*", "bücher.example", "a..b", ":", "/", "*."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rule, err := ParseRule(text)
		if err != nil {
			return
		}
		again, err := ParseRule(rule.String())
		if err != nil || !again.Equal(rule) {
			t.Fatalf("%q is read as %q, and that as %q (%v)", text, rule, again, err)
		}
		if rule.Domain != "" && rule.CoversName(rule.Domain) == rule.Below {
			t.Fatalf("%q: covers its own domain: %v", text, !rule.Below)
		}
	})
}

func BenchmarkAllows(b *testing.B) {
	presets, err := Shipped(nil)
	if err != nil {
		b.Fatal(err)
	}
	policy := presets.For(Agent, nil)
	for b.Loop() {
		policy.Allows("nowhere.example.com", 443)
	}
}
