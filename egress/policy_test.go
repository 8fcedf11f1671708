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
	if own, err = Allow(own, Grant{From: "fifth"}, rules(t, "x.a.example")...); err != nil {
		t.Fatal(err)
	}
	p := presets.For(Agent, own)
	_, web := p.Allows("x.a.example", 443)
	if _, ssh := p.Allows("x.a.example", 22); !web || ssh {
		t.Errorf("a part of what is denied: %v, and the rest %v", web, ssh)
	}
}

// A no outlives a yes that ends.
func TestANoOutlivesWhatEnds(t *testing.T) {
	denial := func(text string) Rule {
		r, err := ParseDenial(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	reaches := func(own []Grant, name string, port uint16) bool {
		_, ok := Policy{Mode: Allowlist, Rules: own}.Allows(name, port)
		return ok
	}
	by := func(from string, lasting time.Duration) Grant {
		return Grant{From: from, Until: time.Now().Add(lasting)}
	}
	preset := []Grant{{Rule: rules(t, "*.example.net")[0], From: "preset"}}
	own, _, err := Presets{}.Deny(Allowlist, preset, Human+"cli", true, denial("web.example.net"))
	if err != nil || reaches(own, "web.example.net", 443) {
		t.Fatalf("%v, %v", own, err)
	}
	// A human's yes to the same beats it while it lasts, and no agent's does.
	if _, err := Allow(own, by("allow_domain", time.Hour), rules(t, "web.example.net")...); !errors.Is(err, ErrStillDenied) {
		t.Errorf("an agent allows what a human denied: %v", err)
	}
	granted, err := Allow(own, by(Human+"web", 50*time.Millisecond), rules(t, "web.example.net")...)
	if err != nil || !reaches(granted, "web.example.net", 443) || reaches(granted, "web.example.net", 22) {
		t.Fatalf("%v, %v", granted, err)
	}
	time.Sleep(60 * time.Millisecond)
	if reaches(granted, "web.example.net", 443) || reaches(Lasting(granted), "web.example.net", 443) {
		t.Error("the preset allows what a human denied, once the grant that was for a while has ended")
	}
	// A denial of less than what is granted stands, and is named; a newer denial beats a grant.
	wide, err := Allow(own, by(Human+"web", time.Hour), rules(t, "*.example.net")...)
	if err != nil || reaches(wide, "web.example.net", 443) || !reaches(wide, "www.example.net", 443) {
		t.Errorf("%v, %v", wide, err)
	}
	if s := Standing(wide, rules(t, "*.example.net")[0]); len(s) != 1 || s[0].Rule.Domain != "web.example.net" {
		t.Errorf("standing: %v", s)
	}
	if s := Standing(wide, rules(t, "www.example.net")[0]); len(s) != 0 {
		t.Errorf("standing against another: %v", s)
	}
	again, _, err := Presets{}.Deny(Allowlist, wide, Human+"web", false, denial("www.example.net"))
	if err != nil || reaches(again, "www.example.net", 443) {
		t.Errorf("what was granted is not denied: %v, %v", again, err)
	}
	// An agent's denial replaces no human's, and can't be made a way around one.
	mixed, _, err := Presets{}.Deny(Allowlist, own, "deny_domain", false, denial("*.example.net"))
	if err != nil {
		t.Fatal(err)
	}
	if mixed, err = Allow(mixed, by("allow_domain", time.Hour), rules(t, "*.example.net")...); err != nil || reaches(mixed, "web.example.net", 443) || !reaches(mixed, "www.example.net", 443) {
		t.Errorf("%v, %v", mixed, err)
	}
	never := []Grant{{Rule: denial("web.example.net"), From: FromNever, Deny: true}}
	if _, err := Allow(never, by(Human+"web", time.Hour), rules(t, "web.example.net")...); !errors.Is(err, ErrStillDenied) {
		t.Errorf("a human allows what the policy never does: %v", err)
	}
	// A clock that went back gives no older rule the last word.
	ahead := []Grant{{Rule: denial("web.example.net"), From: Human + "cli", Deny: true, At: time.Now().Add(time.Hour)}}
	if ahead, err = Allow(ahead, by(Human+"web", time.Hour), rules(t, "web.example.net")...); err != nil || !reaches(ahead, "web.example.net", 443) {
		t.Errorf("%v, %v", ahead, err)
	}
	by443 := Policy{Mode: Allowlist, Rules: wide}
	if d, ok := by443.Decides("web.example.net", 443); ok || !d.Deny || d.From != Human+"cli" {
		t.Errorf("decides: %v, %v", d, ok)
	}
	if d, ok := by443.Decides("other.example.org", 443); ok || d.From != "" {
		t.Errorf("decides: %v, %v", d, ok)
	}
}

func TestACopyInheritsNoGrantForOne(t *testing.T) {
	r := rules(t, "a.example", "b.example", "c.example")
	own, err := Allow(nil, Grant{From: Human + "web", Alone: true}, r[0])
	if err != nil {
		t.Fatal(err)
	}
	if own, err = Allow(own, Grant{From: Human + "web"}, r[0], r[1]); err != nil || len(own) != 2 {
		t.Fatalf("for the lineage after for one: %v, %v", own, err)
	}
	if own, err = Allow(own, Grant{From: Human + "web", Alone: true}, r[1], r[2]); err != nil || len(own) != 3 {
		t.Fatalf("for one what is the lineage's: %v, %v", own, err)
	}
	if copied := Inherited(own); len(copied) != 2 || !copied[0].Rule.Equal(r[0]) || !copied[1].Rule.Equal(r[1]) {
		t.Errorf("%v", copied)
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
