package egress

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func rules(t *testing.T, texts ...string) (out []Rule) {
	t.Helper()
	for _, s := range texts {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func TestThePresetsAreWholeAndSayWhose(t *testing.T) {
	presets, err := Shipped(nil)
	if err != nil {
		t.Fatal(err)
	}
	policy := presets.For(Agent, nil)
	for _, name := range []string{"api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com", "github.com"} {
		if g, ok := policy.Allows(name, 443); !ok || !strings.HasPrefix(g.From, "preset agent: ") {
			t.Errorf("mode agent on %s: %v %q", name, ok, g.From)
		}
	}
	for _, name := range []string{"storage.googleapis.com", "example.com", "evilopenai.com", "githubusercontent.com"} {
		if g, ok := policy.Allows(name, 443); ok {
			t.Errorf("mode agent lets %s out by %s", name, g.Rule)
		}
	}
}

func TestAHumanAddsToPresets(t *testing.T) {
	presets, err := Shipped(Presets{"agent": {{Domains: []string{"*.corp.example:8443"}, Apex: true, Whose: "us"}}})
	if err != nil {
		t.Fatal(err)
	}
	policy := presets.For(Agent, nil)
	for _, name := range []string{"corp.example", "a.corp.example", "api.openai.com"} {
		if _, ok := policy.Allows(name, map[bool]uint16{true: 443, false: 8443}[name == "api.openai.com"]); !ok {
			t.Errorf("%s is denied", name)
		}
	}
	for _, bad := range []Entry{{Domains: []string{"*.com"}, Whose: "x"}, {Domains: []string{"a.example"}}, {Whose: "x"}} {
		if _, err := Shipped(Presets{"agent": {bad}}); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestModesAndTheirRules(t *testing.T) {
	presets, err := Shipped(nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := Allow(nil, Grant{From: "create_sandbox"}, rules(t, "a.example", "10.0.0.0/8")...)
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[Mode][3]bool{ // an own rule, the preset, anything else
		None: {}, Agent: {true, true, false}, Allowlist: {true, false, false}, Unrestricted: {true, true, true}, "made-up": {},
	} {
		p := presets.For(mode, own)
		_, mine := p.Allows("a.example", 443)
		_, preset := p.Allows("api.openai.com", 443)
		_, other := p.Allows("b.example", 443)
		_, addr := p.AllowsAddress(netip.MustParseAddr("10.0.0.1"), 443)
		if got := [3]bool{mine, preset, other}; got != want || addr != want[0] {
			t.Errorf("mode %s: %v, and an address of a rule %v; want %v", mode, got, addr, want)
		}
		if (mode.Check() == nil) != (mode != "made-up") {
			t.Errorf("mode %s: %v", mode, mode.Check())
		}
	}
}

func TestGrantsAreAddedOnceAndTakenBack(t *testing.T) {
	own, err := Allow(nil, Grant{From: "first"}, rules(t, "a.example", "b.example")...)
	if err != nil {
		t.Fatal(err)
	}
	if own, err = Allow(own, Grant{From: "second"}, rules(t, "A.example.", "c.example")...); err != nil || len(own) != 3 || own[0].From != "first" || own[2].From != "second" {
		t.Fatalf("%v %v", own, err)
	}
	b, err := json.Marshal(own)
	var back []Grant
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil || !reflect.DeepEqual(own, back) {
		t.Fatalf("%s is read back as %v (%v)", b, back, err)
	}
	left, missing, err := Presets{}.Deny(Allowlist, own, "x", false, rules(t, "b.example", "a.example:22")...)
	if err != nil || len(left) != 2 || len(missing) != 1 || missing[0].String() != "a.example:22" || len(own) != 3 {
		t.Fatalf("left %v, missing %v", left, missing)
	}
	var many []Rule
	for i := range maxRules + 1 {
		many = append(many, rules(t, fmt.Sprintf("h%d.example", i))...)
	}
	if _, err := Allow(nil, Grant{From: "x"}, many...); !errors.Is(err, ErrTooMany) {
		t.Fatalf("%d rules: %v", len(many), err)
	}
}

func TestWhatIsDeniedStaysDenied(t *testing.T) {
	presets, err := Shipped(nil)
	if err != nil {
		t.Fatal(err)
	}
	denial := func(text string) Rule {
		r, err := ParseDenial(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	own, err := Allow(nil, Grant{From: "first"}, rules(t, "*.a.example", "a.example:22", "10.1.0.0/16")...)
	if err != nil {
		t.Fatal(err)
	}
	own, missing, err := presets.Deny(Agent, own, "second", false, denial("x.a.example"), denial("a.example"), denial("api.openai.com"), denial("none.example"), denial("10.1.2.0/24"))
	if err != nil || len(missing) != 1 || missing[0].Domain != "none.example" {
		t.Fatalf("missing %v, %v", missing, err)
	}
	policy := presets.For(Agent, own)
	for name, want := range map[string]bool{"x.a.example": false, "y.a.example": true, "a.example": false, "api.openai.com": false, "api.anthropic.com": true} {
		if _, got := policy.Allows(name, 443); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for addr, want := range map[string]bool{"10.1.2.3": false, "10.1.3.3": true} {
		if _, got := policy.AllowsAddress(netip.MustParseAddr(addr), 443); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if again, missing, err := presets.Deny(Agent, own, "third", false, denial("api.openai.com")); err != nil || len(again) != len(own) || len(missing) != 1 {
		t.Errorf("denied twice: %v %v %v", again, missing, err)
	}
	if own, err = Allow(own, Grant{From: "fourth"}, rules(t, "api.openai.com:*")...); err != nil {
		t.Fatal(err)
	}
	if _, ok := presets.For(Agent, own).Allows("api.openai.com", 443); !ok {
		t.Error("what was allowed again is denied")
	}
	if _, err := Allow(own, Grant{From: "fifth"}, rules(t, "x.a.example")...); !errors.Is(err, ErrStillDenied) {
		t.Errorf("a part of what is denied: %v", err)
	}
}

func TestOfTwoPoliciesWhatBothAllow(t *testing.T) {
	policy := func(mode Mode, own ...Grant) Policy { return Policy{Mode: mode, Rules: own} }
	r := rules(t, "a.example", "b.example", "*.example.org")
	a, b, c := Grant{Rule: r[0]}, Grant{Rule: r[1]}, Grant{Rule: r[2]}
	no := Grant{Rule: r[0], Deny: true}
	for _, each := range []struct{ was, next, want Policy }{
		{policy(None), policy(Unrestricted), policy(None)},
		{policy(Unrestricted), policy(Allowlist, a), policy(Allowlist, a)},
		{policy(Allowlist, a, b), policy(Allowlist, b, c), policy(Allowlist, b)},
		{policy(Agent, a, b), policy(Allowlist, b), policy(Agent, b)},
		{policy(Allowlist, a, no), policy(Allowlist, a), policy(Allowlist, a, no)},
		{policy(Allowlist, a), policy(Allowlist, a, no), policy(Allowlist, a, no)},
	} {
		for _, got := range []Policy{each.was.Both(each.next), each.next.Both(each.was)} {
			if !reflect.DeepEqual(got, each.want) {
				t.Errorf("%v and %v: %v, not %v", each.was, each.next, got, each.want)
			}
		}
	}
}

func TestGrantsEnd(t *testing.T) {
	now := time.Now()
	r := rules(t, "a.example")
	as := func(d time.Duration) Grant { return Grant{From: d.String(), Until: now.Add(d)} }
	own := []Grant{{Rule: r[0], From: "past", Until: now.Add(-time.Second)}}
	if _, ok := (Policy{Mode: Allowlist, Rules: own}).Allows("a.example", 443); ok || len(Presets{}.For(Allowlist, own).Rules) != 0 {
		t.Error("a grant that has ended allows")
	}
	own, err := Allow(own, as(time.Hour), r...)
	if err != nil || len(own) != 1 || own[0].From != "1h0m0s" {
		t.Fatalf("%v, %v", own, err)
	}
	if own, err = Allow(own, as(time.Minute), r...); err != nil || len(own) != 1 || own[0].From != "1h0m0s" {
		t.Errorf("a shorter one: %v, %v", own, err)
	}
	if own, err = Allow(own, as(2*time.Hour), r...); err != nil || len(own) != 1 || own[0].From != "2h0m0s" {
		t.Errorf("a longer one: %v, %v", own, err)
	}
	once := as(time.Minute)
	once.Once = "r1"
	if own, err = Allow(own, once, rules(t, "b.example")...); err != nil || len(own) != 2 {
		t.Fatalf("%v, %v", own, err)
	}
	if own, err = Allow(own, as(time.Second), rules(t, "b.example")...); err != nil || len(own) != 3 {
		t.Errorf("a grant for one connection stands for one for a time: %v, %v", own, err)
	}
	p := Policy{Mode: Allowlist, Rules: own}
	if next := p.Ends(now); !next.Equal(now.Add(time.Second)) {
		t.Errorf("the next end is %s", next.Sub(now))
	}
	if by, ok := p.Allows("b.example", 443); !ok || by.Once != "" {
		t.Errorf("the one for a time is to be used first: %+v, %v", by, ok)
	}
	spent := p.Spend("r1")
	if !spent.Keeps("r1", "b.example", 443) || spent.Keeps("r2", "b.example", 443) || spent.Keeps("r1", "a.example", 443) {
		t.Error("a connection is kept by another's grant, or not by its own")
	}
	if own[1].Spent {
		t.Error("the policy that it was made from changed")
	}
}
