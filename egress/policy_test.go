package egress

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
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
	for _, name := range []string{"api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com", "pypi.org", "files.pythonhosted.org", "github.com"} {
		if g, ok := policy.Allows(name, 443); !ok || !strings.HasPrefix(g.From, "preset agent: ") {
			t.Errorf("mode agent on %s: %v %q", name, ok, g.From)
		}
	}
	for _, name := range []string{"storage.googleapis.com", "example.com", "evilpypi.org", "githubusercontent.com"} {
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
	own, err := Add(nil, "create_sandbox", rules(t, "a.example", "10.0.0.0/8")...)
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[Mode][3]bool{ // an own rule, the preset, anything else
		None: {}, Agent: {true, true, false}, Allowlist: {true, false, false}, Unrestricted: {true, true, true}, "made-up": {},
	} {
		p := presets.For(mode, own)
		_, mine := p.Allows("a.example", 443)
		_, preset := p.Allows("pypi.org", 443)
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
	own, err := Add(nil, "first", rules(t, "a.example", "b.example")...)
	if err != nil {
		t.Fatal(err)
	}
	if own, err = Add(own, "second", rules(t, "A.example.", "c.example")...); err != nil || len(own) != 3 || own[0].From != "first" || own[2].From != "second" {
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
	left, missing := Remove(own, rules(t, "b.example", "a.example:22")...)
	if len(left) != 2 || len(missing) != 1 || missing[0].String() != "a.example:22" || len(own) != 3 {
		t.Fatalf("left %v, missing %v", left, missing)
	}
	var many []Rule
	for i := range maxRules + 1 {
		many = append(many, rules(t, fmt.Sprintf("h%d.example", i))...)
	}
	if _, err := Add(nil, "x", many...); !errors.Is(err, ErrTooMany) {
		t.Fatalf("%d rules: %v", len(many), err)
	}
}
