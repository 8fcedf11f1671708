package egress

import (
	"strings"
	"testing"
)

func TestNamesThatLookLikeOthersAreTold(t *testing.T) {
	for name, says := range map[string]string{
		"example.com": "", "xn--mnchen-3ya.de": "", "xn--fiqs8s.cn": "", "xn--80aswg.xn--p1ai": "", "xn--r8jz45g.xn--zckzah.jp": "",
		"xn--pple-43d.com":       "mixes letters of Cyrillic and Latin", // with a Cyrillic a
		"xn--80ak6aa92e.com":     "look like Latin",                     // all of it Cyrillic
		"www.xn--exmple-qxe.org": "mixes letters of Greek and Latin",
	} {
		if got := Alike(name); (says == "") != (got == "") || !strings.Contains(got, says) {
			t.Errorf("%s (%s): %q", name, Display(name), got)
		}
	}
	if Display("xn--mnchen-3ya.de") != "münchen.de" || Display("example.com") != "example.com" {
		t.Error(Display("xn--mnchen-3ya.de"))
	}
	r := rules(t, "*.example.com", "example.com:1-9", "example.com")
	if r[0].Wide() == "" || r[1].Wide() == "" || r[2].Wide() != "" || !strings.Contains(r[0].Opens(), "every name below") || !strings.Contains(r[1].Opens(), "ports 1 to 9;") || !strings.Contains(r[2].Opens(), "ports 80 and 443;") {
		t.Error(r[0].Opens(), r[1].Opens())
	}
}
