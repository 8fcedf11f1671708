package manager_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// askFor asks as an agent does, with a reason and a length.
func (a *asked) askFor(t *testing.T, name, domain, reason string, ttl time.Duration) ledger.Request {
	t.Helper()
	got, err := a.agent.Allow(t.Context(), manager.Agent("me"), manager.AllowRequest{Name: name, Domains: []string{domain}, Reason: reason, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return got.Requests[0]
}

func TestAnAnswerIsToWhatWasShown(t *testing.T) {
	a := newAsked(t, "")
	shown := a.askFor(t, "c1", "x.example.com", "to read the docs", 15*time.Minute)
	// What is asked later changes nothing of what is open.
	later := a.askFor(t, "c1", "x.example.com", "for something else", 29*24*time.Hour)
	if later.ID != shown.ID || later.Reason != "to read the docs" || later.Wanted.Duration() != 15*time.Minute || later.Count != 2 {
		t.Errorf("%+v", later)
	}
	if usual, _ := a.human.GrantFor(later); usual != 15*time.Minute {
		t.Errorf("it would last %s", usual)
	}
	if a.human.Digest(later) != a.human.Digest(shown) {
		t.Error("the same question again is another one")
	}
	for what, seen := range map[string]string{"nothing": "", "nonsense": "abc"} {
		if _, err := a.human.Approve(t.Context(), manager.Approval{ID: shown.ID, Seen: seen}); !errors.Is(err, ledger.ErrChanged) {
			t.Errorf("%s was seen: %v", what, err)
		}
	}
	// Another sandbox asks the same: whoever was shown one has not been shown two.
	more := a.askFor(t, "c2", "x.example.com", "me too", 0)
	if !slices.Equal(more.Names(), []string{"c1", "c2"}) || more.Reason != "to read the docs" {
		t.Errorf("%+v", more)
	}
	_, err := a.human.Approve(t.Context(), manager.Approval{ID: shown.ID, Seen: a.human.Digest(shown)})
	if !errors.Is(err, ledger.ErrChanged) || !strings.Contains(err.Error(), "c1, c2") || !strings.Contains(err.Error(), a.human.Handle(more)) {
		t.Errorf("an answer to what was shown before: %v", err)
	}
	if _, err := a.human.Refuse(t.Context(), manager.Approval{ID: shown.ID, Seen: a.human.Digest(shown)}); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("a no to what was shown before: %v", err)
	}
	if r, err := a.human.Request(shown.ID); err != nil || r.State != ledger.RequestOpen || a.reaches(t, "c1", "x.example.com") {
		t.Errorf("%+v, %v", r, err)
	}
	// By default the answer is to those that asked, and to what is cloned from them it is not.
	got, err := a.human.Approve(t.Context(), manager.Approval{ID: shown.ID, Seen: a.human.Digest(more), By: "test"})
	if err != nil || !slices.Equal(got.Names, []string{"c1", "c2"}) || time.Until(got.Until) > 15*time.Minute {
		t.Fatalf("%+v, %v", got, err)
	}
	if !a.reaches(t, "c1", "x.example.com") || !a.reaches(t, "c2", "x.example.com") || a.reaches(t, "box", "x.example.com") || a.reaches(t, "c3", "x.example.com") {
		t.Error("not those that asked")
	}
	_, err = a.agent.CreateCheckpoint(t.Context(), manager.Agent("me"), "c1", "then", "")
	if err == nil {
		_, err = a.agent.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "c1:then", Names: []string{"d1"}})
	}
	if err == nil {
		_, err = a.agent.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "d2", From: "c1:then"})
	}
	if err != nil || a.reaches(t, "d1", "x.example.com") || a.reaches(t, "d2", "x.example.com") {
		t.Errorf("a copy has what its source alone was given: %v", err)
	}
	if _, err := a.agent.Restore(t.Context(), manager.Agent("me"), "c1", "then"); err != nil || !a.reaches(t, "c1", "x.example.com") {
		t.Errorf("a restore took it: %v", err)
	}
	// The policy's length counts where the wish is longer.
	long := a.askFor(t, "c1", "long.example.com", "", 20*24*time.Hour)
	if usual, _ := a.human.GrantFor(long); usual != time.Hour {
		t.Errorf("it would last %s", usual)
	}
}

// Who asks while the same is just being granted to others asks a question of its own.
func TestWhoAsksDuringAGrantIsNotToldItIsTheirs(t *testing.T) {
	a := newAsked(t, "")
	r := a.askFor(t, "c1", "x.example.com", "", 0)
	if _, err := a.store.Claim(r.ID, "test", nil); err != nil {
		t.Fatal(err)
	}
	asked := make(chan ledger.Request)
	go func() { asked <- a.askFor(t, "c2", "x.example.com", "", 0) }()
	time.Sleep(150 * time.Millisecond)
	if _, err := a.store.Grant(r.ID, "test", policy.Askers, time.Now().Add(time.Hour), ""); err != nil {
		t.Fatal(err)
	}
	if mine := <-asked; mine.ID == r.ID || mine.State != ledger.RequestOpen || !slices.Equal(mine.Names(), []string{"c2"}) {
		t.Errorf("%+v", mine)
	}
}

// A connection's question has no words until the agent says some, which whoever was shown it without has not been shown.
func TestTheAgentsFirstWordsAreShown(t *testing.T) {
	a := newAsked(t, "")
	box, err := a.Get(t.Context(), "me", "c1")
	if err != nil {
		t.Fatal(err)
	}
	bare, _, err := a.store.Raise(ledger.Request{Owner: "me", Sandbox: "c1", Born: box.CreatedAt, Lineage: box.Lineage, Subject: "x.example.com", Source: ledger.ByConnection, Process: "7 curl"})
	if err != nil {
		t.Fatal(err)
	}
	worded := a.askFor(t, "c1", "x.example.com", "to read the docs", 0)
	if worded.ID != bare.ID || worded.Reason != "to read the docs" || worded.Process != "7 curl" {
		t.Errorf("%+v", worded)
	}
	if _, err := a.human.Approve(t.Context(), manager.Approval{ID: bare.ID, Seen: a.human.Digest(bare)}); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("an answer to the question without words: %v", err)
	}
	if again := a.askFor(t, "c1", "x.example.com", "for something else", 0); again.Reason != "to read the docs" {
		t.Errorf("%+v", again)
	}
}

// A sandbox that was made later, under the name of one that asked, asked for nothing.
func TestANewSandboxIsNotTheOneThatAsked(t *testing.T) {
	a := newAsked(t, "")
	r := a.askFor(t, "c1", "x.example.com", "", 0)
	if _, err := a.agent.Destroy(t.Context(), manager.Agent("me"), []string{"c1"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond)
	if _, err := a.agent.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "box:one", Names: []string{"c1"}}); err != nil {
		t.Fatal(err)
	}
	if got, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.seen(t, r.ID)}); err == nil || a.reaches(t, "c1", "x.example.com") {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAGrantForOneConnectionIsCopiedNowhere(t *testing.T) {
	a := newAsked(t, "")
	r := a.askFor(t, "c1", "once.example.com", "", 0)
	if _, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.seen(t, r.ID), Scope: policy.Once}); err != nil {
		t.Fatal(err)
	}
	_, err := a.agent.CreateCheckpoint(t.Context(), manager.Agent("me"), "c1", "then", "")
	if err == nil {
		_, err = a.agent.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "c1:then", Names: []string{"d1"}})
	}
	if err != nil || !a.reaches(t, "c1", "once.example.com") || a.reaches(t, "d1", "once.example.com") {
		t.Errorf("%v", err)
	}
	box, err := a.Get(t.Context(), "me", "c1")
	if err != nil || slices.ContainsFunc(box.Rules, func(g egress.Grant) bool { return g.Once != "" }) {
		t.Errorf("it is kept with the sandbox: %+v, %v", box.Rules, err)
	}
}

// Of several that asked one connection is that of the sandbox whose connection waits.
func TestOneConnectionIsTheOneThatWaits(t *testing.T) {
	a := newAsked(t, "")
	r := a.askFor(t, "c1", "once.example.com", "", 0)
	box, err := a.Get(t.Context(), "me", "c2")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = a.store.Raise(ledger.Request{Owner: "me", Sandbox: "c2", Born: box.CreatedAt, Lineage: box.Lineage, Subject: r.Subject, Source: ledger.ByConnection, Held: time.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.seen(t, r.ID), Scope: policy.Once})
	if err != nil || !slices.Equal(got.Names, []string{"c2"}) || a.reaches(t, "c1", "once.example.com") || !a.reaches(t, "c2", "once.example.com") {
		t.Errorf("%+v, %v", got.Names, err)
	}
}

func TestANoOutlivesAYes(t *testing.T) {
	a := newAsked(t, "")
	human := func(name, domain string) {
		t.Helper()
		if _, err := a.human.Deny(t.Context(), a.human.As("me"), name, []string{domain}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.human.SetEgress(t.Context(), a.human.As("me"), "c1", egress.Agent); err != nil {
		t.Fatal(err)
	}
	human("c1", "api.openai.com") // which the preset has
	r := a.askFor(t, "c1", "api.openai.com", "", 0)
	if r.State != ledger.RequestOpen {
		t.Fatalf("%+v", r)
	}
	if _, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.seen(t, r.ID), For: time.Second}); err != nil || !a.reaches(t, "c1", "api.openai.com") {
		t.Fatalf("a human's yes does not count: %v", err)
	}
	time.Sleep(1100 * time.Millisecond)
	if a.reaches(t, "c1", "api.openai.com") {
		t.Error("with the yes the no is over, and the preset allows it for good")
	}
	// A no of less stands, and the answer names it.
	human("c2", "web.example.net")
	r = a.askFor(t, "c2", "*.example.net", "", 0)
	got, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.seen(t, r.ID)})
	if err != nil || len(got.Standing) != 1 || got.Standing[0].Rule.Domain != "web.example.net" || a.reaches(t, "c2", "web.example.net") || !a.reaches(t, "c2", "www.example.net") {
		t.Errorf("%+v, %v", got, err)
	}
	// A refusal takes what a grant of more has meanwhile.
	r = a.askFor(t, "c3", "web.example.net", "", 0)
	if _, err := a.human.Allow(t.Context(), a.human.As("me"), manager.AllowRequest{Name: "box", Domains: []string{"*.example.net"}}); err != nil || !a.reaches(t, "box", "web.example.net") {
		t.Fatal(err)
	}
	if _, err := a.human.Refuse(t.Context(), manager.Approval{ID: r.ID, By: "test"}); err != nil || a.reaches(t, "box", "web.example.net") || !a.reaches(t, "box", "www.example.net") {
		t.Errorf("refused, and in reach: %v", err)
	}
	// What was given for itself is not taken by a no to more.
	r = a.askFor(t, "box", "*.org.example.org", "", 0)
	if _, err := a.human.Allow(t.Context(), a.human.As("me"), manager.AllowRequest{Name: "box", Domains: []string{"one.org.example.org"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.human.Refuse(t.Context(), manager.Approval{ID: r.ID, By: "test"}); err != nil || !a.reaches(t, "box", "one.org.example.org") {
		t.Errorf("a no to more took what was given: %v", err)
	}
	// On the one port of two that a grant of more has.
	r = a.askFor(t, "box", "web.example.com", "", 0)
	if _, err := a.human.Allow(t.Context(), a.human.As("me"), manager.AllowRequest{Name: "box", Domains: []string{"*.example.com:443"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.human.Refuse(t.Context(), manager.Approval{ID: r.ID, By: "test"}); err != nil || a.reaches(t, "box", "web.example.com") || !a.reaches(t, "box", "www.example.com") {
		t.Errorf("refused, and in reach on one port: %v", err)
	}
}

// A grant that can't be brought to all leaves all as they were: also what it would have replaced.
func TestAFailedGrantRestoresWhatWas(t *testing.T) {
	a := newAsked(t, "")
	if _, err := a.human.Allow(t.Context(), a.human.As("me"), manager.AllowRequest{Name: "c1", Domains: []string{"x.example.com"}, TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	before, err := a.Get(t.Context(), "me", "c1")
	c2, err2 := a.Get(t.Context(), "me", "c2")
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	r := a.askFor(t, "c2", "*.example.com", "", 0)
	_, door := manager.NewWithDoor(&failing{a.Memory, c2.ID}, manager.Defaults{Store: a.store})
	broken := door.Human("test")
	if _, err := broken.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.seen(t, r.ID), Scope: policy.ThisLineage}); err == nil {
		t.Fatal("it is granted")
	}
	after, err := a.Get(t.Context(), "me", "c1")
	if err != nil || len(after.Rules) != len(before.Rules) || !after.Rules[0].Until.Equal(before.Rules[0].Until) || !a.reaches(t, "c1", "x.example.com") || a.reaches(t, "c1", "y.example.com") {
		t.Errorf("it was %+v and is %+v, %v", before.Rules, after.Rules, err)
	}
}

func TestAWiderAnswerEndsNarrowerQuestions(t *testing.T) {
	a := newAsked(t, "")
	one, two := a.askFor(t, "c1", "one.example.net", "", 0), a.askFor(t, "c1", "two.example.net:8443", "", 0)
	other := a.askFor(t, "c2", "three.example.net", "", 0)
	wide := a.askFor(t, "c1", "*.example.net", "", 0)
	if _, err := a.human.Approve(t.Context(), manager.Approval{ID: wide.ID, Seen: a.seen(t, wide.ID)}); err != nil {
		t.Fatal(err)
	}
	r, err := a.agent.WaitRequest(t.Context(), manager.Agent("me"), one.ID, 0)
	if err != nil || r.State != ledger.RequestGranted || !strings.Contains(r.Answer, "granted by *.example.net ("+wide.ID) || r.Until.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	for _, open := range []ledger.Request{two, other} { // another port, another sandbox
		if r, err := a.human.Request(open.ID); err != nil || r.State != ledger.RequestOpen {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if _, _, err := a.human.RevokeRequest(t.Context(), one.ID, "test"); !errors.Is(err, sandbox.ErrState) || !strings.Contains(err.Error(), wide.ID) {
		t.Errorf("revoking what another request granted: %v", err)
	}
	if _, err := a.human.Allow(t.Context(), a.human.As("me"), manager.AllowRequest{Name: "c2", Domains: []string{"*.example.net"}}); err != nil {
		t.Fatal(err)
	}
	if r, err := a.human.Request(other.ID); err != nil || r.State != ledger.RequestGranted || !strings.Contains(r.Answer, "granted by *.example.net (human, test") {
		t.Errorf("%+v, %v", r, err)
	}
}

// What a human cut off no agent connects again: not it, and no copy of it.
func TestACutIsAHumansToUndo(t *testing.T) {
	a := newAsked(t, "[egress]\nmodes = [\"none\", \"agent\", \"allowlist\", \"unrestricted\"]")
	if _, err := a.human.Deny(t.Context(), a.human.As("me"), "c2", []string{"no.example.com"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.human.SetEgress(t.Context(), a.human.As("me"), "c1", egress.None); err != nil {
		t.Fatal(err)
	}
	if _, err := a.human.Panic(t.Context(), "me", "c3", false); err != nil {
		t.Fatal(err)
	}
	_, err := a.agent.CreateCheckpoint(t.Context(), manager.Agent("me"), "c1", "then", "")
	if err == nil {
		_, err = a.agent.CreateCheckpoint(t.Context(), manager.Agent("me"), "c2", "then", "")
	}
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string, mode egress.Mode) func() error {
		return func() error { _, err := a.agent.SetEgress(t.Context(), manager.Agent("me"), name, mode); return err }
	}
	for what, try := range map[string]func() error{
		"another mode": set("c1", egress.Agent), "after a panic": set("c3", egress.Allowlist), "a mode that lifts a denial": set("c2", egress.Unrestricted),
		"a clone": func() error {
			_, err := a.agent.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "c1:then", Egress: egress.Agent})
			return err
		},
		"a copy": func() error {
			_, err := a.agent.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "d", From: "c1:then", Egress: egress.Agent})
			return err
		},
		"a clone in a mode that lifts a denial": func() error {
			_, err := a.agent.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "c2:then", Egress: egress.Unrestricted})
			return err
		},
	} {
		if err := try(); !errors.Is(err, sandbox.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := a.agent.Rename(t.Context(), manager.Agent("me"), "c3", "c4"); err != nil {
		t.Fatal(err)
	}
	if err := set("c4", egress.Allowlist)(); !errors.Is(err, sandbox.ErrDenied) {
		t.Errorf("under another name: %v", err)
	}
	if clones, err := a.agent.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "c1:then", Names: []string{"d1"}}); err != nil || clones[0].Err != nil || clones[0].Sandbox.Egress != egress.None {
		t.Errorf("a clone without a network: %+v, %v", clones, err)
	}
	// What an agent set to none itself it may change; and a human gives back.
	if err := errors.Join(set("box", egress.None)(), set("box", egress.Agent)()); err != nil {
		t.Error(err)
	}
	if _, err := a.human.SetEgress(t.Context(), a.human.As("me"), "c1", egress.Allowlist); err != nil {
		t.Fatal(err)
	}
	if err := set("c1", egress.Agent)(); err != nil {
		t.Error(err)
	}
	// A record that can't be written keeps nobody from being cut off.
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = a.human.Panic(t.Context(), "me", "c1", false)
	box, err2 := a.Get(t.Context(), "me", "c1")
	if err == nil || err2 != nil || box.Egress != egress.None || !strings.Contains(err.Error(), "has no network now") {
		t.Errorf("%v, %+v, %v", err, box.Egress, err2)
	}
}
