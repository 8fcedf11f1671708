package policy

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pixels/egress"
)

func capsOf(t testing.TB, holder, limits string, parent *Caps) *Caps {
	t.Helper()
	c := &Caps{Holder: holder, Parent: parent}
	if err := json.Unmarshal([]byte(limits), &c.Limits); err != nil {
		t.Fatal(err)
	}
	return c
}

// All limits of a token and of those above it hold, beside the policy.
func TestCaps(t *testing.T) {
	top := capsOf(t, "orch", `{"sandboxes":3,"memory":4294967296,"max_lease":7200000000000,"domains":["*.example.com"]}`, nil)
	child := capsOf(t, "orch/w1", `{"sandboxes":1,"egress":["none","allowlist"],"tools":["create_sandbox","exec","allow_domain"]}`, top)
	used := func(by map[string]Usage) func(string) (Usage, error) {
		return func(top string) (Usage, error) { return by[top], nil }
	}
	for _, test := range []struct {
		name string
		call Call
		rule string // that denies; empty is no denial
	}{
		{"a first one", Call{Verb: VerbCreateSandbox, Needs: Needs{Sandboxes: 1}, Usage: used(map[string]Usage{"orch": {Sandboxes: 2}})}, ""},
		{"its own quota", Call{Verb: VerbCreateSandbox, Needs: Needs{Sandboxes: 1}, Usage: used(map[string]Usage{"orch": {Sandboxes: 2}, "orch/w1": {Sandboxes: 1}})}, "token orch/w1 sandboxes"},
		{"the quota of its parent, which others used up", Call{Verb: VerbCreateSandbox, Needs: Needs{Sandboxes: 1}, Usage: used(map[string]Usage{"orch": {Sandboxes: 3}})}, "token orch sandboxes"},
		{"memory", Call{Verb: VerbCreateSandbox, Needs: Needs{Sandboxes: 1, Memory: 1 << 30}, Usage: used(map[string]Usage{"orch": {Memory: 4<<30 - 1}})}, "token orch memory"},
		{"another tool", Call{Verb: VerbDestroySandbox}, "token orch/w1 tools"},
		{"another mode", Call{Verb: VerbCreateSandbox, Needs: Needs{Mode: egress.Agent}}, "token orch/w1 egress"},
		{"a long lease", Call{Verb: VerbCreateSandbox, Needs: Needs{Lease: 3 * time.Hour}}, "token orch max_lease"},
		{"a domain", Call{Verb: VerbAllowDomain, Needs: Needs{Domains: domains(t, "a.example.com")}}, ""},
		{"another domain", Call{Verb: VerbAllowDomain, Needs: Needs{Domains: domains(t, "a.example.com", "example.org")}}, "token orch domains"},
	} {
		test.call.Owner, test.call.Caps = "orch/w1", child
		got, err := Shipped().Vet(test.call)
		if err != nil || (got.Decision == Deny) != (test.rule != "") || test.rule != "" && got.Rule != test.rule {
			t.Errorf("%s: %+v, %v", test.name, got, err)
		}
	}
	unrestricted := Call{Verb: VerbCreateSandbox, Owner: "orch", Caps: top, Needs: Needs{Mode: egress.Unrestricted}}
	if got, err := parse(t, "[egress]\nmodes = [\"unrestricted\"]").Vet(unrestricted); err != nil || got.Rule != "token orch egress" {
		t.Errorf("what bounds domains is gone round by a mode: %+v, %v", got, err)
	}
	if child.Offers(VerbListFiles) || !child.Offers(VerbExec) || !top.Offers(VerbListFiles) {
		t.Error("what is offered is not what may be called")
	}
}

// The policy's rules for a token hold for all below it, who share its quota.
func TestThePolicyCountsATree(t *testing.T) {
	set := parse(t, "[owners.orch.quota]\nsandboxes = 2")
	asked := ""
	got, err := set.Vet(Call{Verb: VerbCreateSandbox, Owner: "orch/w1", Needs: Needs{Sandboxes: 1}, Usage: func(top string) (Usage, error) {
		asked = top
		return Usage{Sandboxes: 2}, nil
	}})
	if err != nil || got.Rule != "owners.orch.quota.sandboxes" || asked != "orch" {
		t.Errorf("%+v, %v, of %q", got, err, asked)
	}
}

func TestNarrower(t *testing.T) {
	top := capsOf(t, "orch", `{"sandboxes":3,"disk":1073741824,"max_lease":7200000000000,"egress":["none","agent"],"domains":["*.example.com"],"tools":["exec"]}`, nil)
	middle := capsOf(t, "orch/w1", `{"cpu":2}`, top)
	for limits, want := range map[string]string{
		`{}`: "",
		`{"sandboxes":3,"disk":1,"max_lease":1,"egress":[],"domains":["a.example.com"],"tools":["exec"],"cpu":2}`: "",
		`{"sandboxes":4}`:                 "sandboxes: orch has 3",
		`{"cpu":3}`:                       "cpu: orch/w1 has 2",
		`{"disk":2147483648}`:             "1GiB",
		`{"max_lease":7200000000001}`:     "2h",
		`{"egress":["unrestricted"]}`:     "none, agent",
		`{"domains":["*.example.org"]}`:   "*.example.org is not among",
		`{"tools":["exec","list_files"]}`: "list_files",
	} {
		err := middle.Narrower(capsOf(t, "", limits, nil).Limits)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", limits, err)
		}
	}
}

// Whatever a chain of tokens looks like, nothing passes its end that its top would not let pass.
func TestNoTokenPassesMoreThanThoseAboveIt(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	for range 5000 {
		var chain []*Caps
		for depth := range 1 + random.IntN(4) {
			c := &Caps{Holder: "orch" + strings.Repeat("/x", depth)}
			if depth > 0 {
				c.Parent = chain[depth-1]
			}
			limits := pick(`{}`, `{"sandboxes":2}`, `{"sandboxes":0}`, `{"egress":["none"]}`, `{"egress":["none","agent"]}`, `{"domains":["*.example.com"]}`, `{"domains":["a.example.com"]}`, `{"tools":["create_sandbox"]}`, `{"tools":[]}`)
			if err := json.Unmarshal([]byte(limits), &c.Limits); err != nil {
				t.Fatal(err)
			}
			chain = append(chain, c)
		}
		call := Call{Verb: VerbCreateSandbox, Owner: "orch", Needs: Needs{Sandboxes: 1, Mode: egress.Mode(pick("none", "agent", "allowlist")), Domains: domains(t, pick("a.example.com", "b.example.com", "example.org"))},
			Usage: have(Usage{Sandboxes: random.IntN(3)})}
		call.Caps = chain[len(chain)-1]
		got, err := Shipped().Vet(call)
		if err != nil {
			t.Fatal(err)
		}
		for _, above := range chain {
			call.Caps = above
			if here, _ := Shipped().Vet(call); got.Decision != Deny && here.Decision == Deny {
				t.Fatalf("%+v passes %+v", call, chain)
			}
		}
	}
}
