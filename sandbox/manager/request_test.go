package manager_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// asked is a backend with a sandbox "box" and clones of it, a store, and two managers over them: an agent's and a human's.
type asked struct {
	*sandboxtest.Memory
	store *ledger.Store
	path  string
	agent *manager.Manager
	human *manager.Human
}

func newAsked(t *testing.T, rules string) *asked {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pixels.db")
	store, err := ledger.Open(path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	a := &asked{Memory: sandboxtest.NewMemory(), store: store, path: path}
	var door manager.Door
	a.agent, door = manager.NewWithDoor(a.Memory, manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Policy: sandboxtest.Policy(t, rules), Store: store})
	a.human = door.Human("test")
	_, err = a.agent.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "box"})
	if err == nil {
		_, err = a.agent.CreateCheckpoint(t.Context(), manager.Agent("me"), "box", "one", "")
	}
	if err == nil {
		_, err = a.agent.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "box:one", Names: []string{"c1", "c2", "c3"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *asked) reaches(t *testing.T, name, domain string) bool {
	t.Helper()
	e, err := a.agent.Egress(t.Context(), manager.Agent("me"), name)
	if err != nil {
		t.Fatal(err)
	}
	_, ok := egress.Policy{Mode: e.Mode, Rules: e.Rules}.Allows(domain, 443)
	return ok
}

// seen is the digest of a request as it is now.
func (a *asked) seen(t *testing.T, id string) string {
	t.Helper()
	r, err := a.human.Request(id)
	if err != nil {
		t.Fatal(err)
	}
	return a.human.Digest(r)
}

func (a *asked) allow(t *testing.T, name string, domains ...string) manager.AllowResult {
	t.Helper()
	got, err := a.agent.Allow(t.Context(), manager.Agent("me"), manager.AllowRequest{Name: name, Domains: domains, Reason: "to try"})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWhatIsNotGrantedUnaskedIsAsked(t *testing.T) {
	a := newAsked(t, "[egress]\nallow = [\"free.example.com\"]")
	got := a.allow(t, "c1", "free.example.com", "asked.example.com")
	if len(got.Granted) != 1 || len(got.Requests) != 1 || got.Requests[0].State != ledger.RequestOpen || !a.reaches(t, "c1", "free.example.com") || a.reaches(t, "c1", "asked.example.com") {
		t.Fatalf("%+v", got)
	}
	id := got.Requests[0].ID
	if again := a.allow(t, "c2", "asked.example.com"); len(again.Requests) != 1 || again.Requests[0].ID != id || again.Requests[0].Count != 2 {
		t.Errorf("a clone's question is another one: %+v", again)
	}
	if got := a.allow(t, "c1", "free.example.com"); len(got.Granted)+len(got.Requests) != 0 {
		t.Errorf("what it has is given or asked again: %+v", got)
	}
	if _, has := any(a.agent).(interface {
		Approve(context.Context, manager.Approval) (manager.Approved, error)
	}); has {
		t.Fatal("an agent approves")
	}
	if _, err := a.agent.WaitRequest(t.Context(), manager.Agent("other"), id, 0); !errors.Is(err, ledger.ErrNoRequest) {
		t.Errorf("another owner sees it: %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if r, err := a.agent.WaitRequest(t.Context(), manager.Agent("me"), id, 10*time.Second); err != nil || r.State != ledger.RequestGranted {
			t.Errorf("who waits hears %+v, %v", r, err)
		}
	})
	r, err := a.human.Approve(t.Context(), manager.Approval{ID: id, Seen: a.seen(t, id), By: "test", Scope: policy.ThisLineage, For: time.Hour})
	if err != nil || len(r.Names) != 4 || r.State != ledger.RequestGranted || time.Until(r.Until) > time.Hour {
		t.Fatalf("%+v, %v", r, err)
	}
	wg.Wait()
	for _, name := range []string{"box", "c1", "c2", "c3"} {
		if !a.reaches(t, name, "asked.example.com") {
			t.Errorf("%s was not given it", name)
		}
	}
	if _, err := a.human.Approve(t.Context(), manager.Approval{ID: id, By: "second"}); !errors.Is(err, ledger.ErrDecided) || !strings.Contains(err.Error(), "by test") {
		t.Errorf("twice: %v", err)
	}
	for _, bad := range []manager.Approval{{ID: "req-none"}, {ID: id, Scope: "all"}} {
		if _, err := a.human.Approve(t.Context(), bad); err == nil {
			t.Errorf("%+v is approved", bad)
		}
	}
}

func TestScopesOfAGrant(t *testing.T) {
	a := newAsked(t, "")
	one := a.allow(t, "c1", "one.example.com").Requests[0]
	if got, err := a.human.Approve(t.Context(), manager.Approval{ID: one.ID, Seen: a.human.Digest(one), Scope: policy.Askers}); err != nil || len(got.Names) != 1 || !a.reaches(t, "c1", "one.example.com") || a.reaches(t, "c2", "one.example.com") {
		t.Errorf("sandbox: %+v, %v", got, err)
	}
	once := a.allow(t, "c1", "once.example.com").Requests[0]
	if got, err := a.human.Approve(t.Context(), manager.Approval{ID: once.ID, Seen: a.human.Digest(once), Scope: policy.Once}); err != nil || len(got.Names) != 1 {
		t.Errorf("once: %+v, %v", got, err)
	}
	e, err := a.agent.Egress(t.Context(), manager.Agent("me"), "c1")
	if err != nil || !slices.ContainsFunc(e.Rules, func(g egress.Grant) bool { return g.Once == once.ID && !g.Until.IsZero() }) {
		t.Errorf("%+v, %v", e.Rules, err)
	}
	long := a.allow(t, "c1", "long.example.com").Requests[0]
	if _, err := a.human.Approve(t.Context(), manager.Approval{ID: long.ID, Seen: a.human.Digest(long), For: 1000 * time.Hour}); !errors.Is(err, sandbox.ErrInvalid) || a.reaches(t, "c1", "long.example.com") {
		t.Errorf("longer than may be: %v", err)
	}
	if r, err := a.human.Request(long.ID); err != nil || r.State != ledger.RequestOpen {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestARefusalStandsAndReleases(t *testing.T) {
	a := newAsked(t, "")
	r := a.allow(t, "c1", "no.example.com").Requests[0]
	if _, err := a.human.Refuse(t.Context(), manager.Approval{ID: r.ID, By: "test", Answer: "use the mirror"}); err != nil {
		t.Fatal(err)
	}
	if holds := a.Holds("me", "c2"); len(holds) == 0 || holds[0] != 0 {
		t.Errorf("who waits for the answer is told %v", holds)
	}
	again := a.allow(t, "c2", "no.example.com").Requests[0]
	if again.State != ledger.RequestDenied || again.Answer != "use the mirror" || a.reaches(t, "c2", "no.example.com") {
		t.Errorf("%+v", again)
	}
}

func TestWhatAHumanTookNoAgentTakesBack(t *testing.T) {
	a := newAsked(t, "[egress]\nallow = [\"free.example.com\"]\nmodes = [\"allowlist\"]\nnever = [\"never.example.com\"]")
	a.allow(t, "box", "free.example.com")
	if _, err := a.human.Deny(t.Context(), a.human.As("me"), "box", []string{"*.example.com"}); err != nil {
		t.Fatal(err)
	}
	if got := a.allow(t, "box", "free.example.com"); len(got.Granted) != 0 && a.reaches(t, "box", "free.example.com") {
		t.Errorf("an agent undid it: %+v", got)
	}
	if _, err := a.human.Allow(t.Context(), a.human.As("me"), manager.AllowRequest{Name: "box", Domains: []string{"never.example.com"}}); !errors.Is(err, sandbox.ErrDenied) {
		t.Errorf("never, by a human: %v", err)
	}
}

func TestARequestWhoseSandboxIsGone(t *testing.T) {
	a := newAsked(t, "")
	r := a.allow(t, "c1", "x.example.com").Requests[0]
	if _, err := a.agent.Destroy(t.Context(), manager.Agent("me"), []string{"c1", "c2", "c3"}); err != nil {
		t.Fatal(err)
	}
	if r, err := a.human.Request(r.ID); err != nil || r.State != ledger.RequestOpen {
		t.Errorf("one of the lineage is left: %+v, %v", r, err)
	}
	// One that is gone without this process's doing.
	box, err := a.Get(t.Context(), "me", "box")
	if err == nil {
		err = a.Memory.Destroy(t.Context(), box.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.human.Digest(r)}); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if r, err := a.human.Request(r.ID); err != nil || r.State != ledger.RequestWithdrawn {
		t.Errorf("%+v, %v", r, err)
	}
}

// failing is a backend that can't bring a grant to one sandbox.
type failing struct {
	*sandboxtest.Memory
	id string
}

func (f *failing) SetEgress(ctx context.Context, id string, edit sandbox.EgressEdit) (int, error) {
	if id == f.id {
		return 0, errors.New("the gateway is gone")
	}
	return f.Memory.SetEgress(ctx, id, edit)
}

func TestAGrantIsBroughtToAllOrToNone(t *testing.T) {
	a := newAsked(t, "")
	r := a.allow(t, "c1", "x.example.com").Requests[0]
	c2, err := a.Get(t.Context(), "me", "c2")
	if err != nil {
		t.Fatal(err)
	}
	_, door := manager.NewWithDoor(&failing{a.Memory, c2.ID}, manager.Defaults{Store: a.store})
	broken := door.Human("test")
	if _, err := broken.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.human.Digest(r), Scope: policy.ThisLineage}); err == nil || !strings.Contains(err.Error(), "none has it") {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"box", "c1", "c2", "c3"} {
		if a.reaches(t, name, "x.example.com") {
			t.Errorf("%s has it", name)
		}
	}
	if r, err := a.human.Request(r.ID); err != nil || r.State != ledger.RequestOpen {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestNewSandboxesAsk(t *testing.T) {
	a := newAsked(t, "[egress]\nallow = [\"free.example.com\"]")
	box, err := a.agent.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "new", Allow: []string{"free.example.com", "asked.example.com"}})
	if err != nil || len(box.Requests) != 1 || !a.reaches(t, "new", "free.example.com") || a.reaches(t, "new", "asked.example.com") {
		t.Fatalf("%+v, %v", box, err)
	}
	clones, err := a.agent.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "box:one", Count: 2, Allow: []string{"asked.example.com"}})
	if err != nil || clones[0].Err != nil || len(clones[0].Sandbox.Requests) != 1 || clones[0].Sandbox.Requests[0] != clones[1].Sandbox.Requests[0] || a.reaches(t, clones[0].Name, "asked.example.com") {
		t.Fatalf("%+v, %v", clones, err)
	}
	mute := manager.New(a.Memory, manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist})
	if _, err := mute.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "mute", Allow: []string{"asked.example.com"}}); err == nil {
		t.Error("with nobody to ask it is made")
	}
	if _, err := a.Get(t.Context(), "me", "mute"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("what could not be asked for is left: %v", err)
	}
}

func TestBlockedConnectionsAreHeldAndAsked(t *testing.T) {
	synctest.Test(t, blockedConnectionsAreHeldAndAsked)
}

func blockedConnectionsAreHeldAndAsked(t *testing.T) {
	a := newAsked(t, "[egress]\nallow = [\"free.example.com\"]\nnever = [\"never.example.com\"]\nhold = \"20s\"")
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	for range 3 { // of several servers, one watches
		watching.Go(func() {
			a.agent.KeepWatched(ctx, func(err error) {
				if !errors.Is(err, sandbox.ErrUnavailable) {
					t.Error(err)
				}
			})
		})
	}
	defer watching.Wait()
	defer cancel()
	told := func(n int) []time.Duration {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if holds := a.Holds("me", "c1"); len(holds) >= n {
				return holds
			}
		}
		t.Fatalf("the gateway was told %v, want %d", a.Holds("me", "c1"), n)
		return nil
	}
	a.Connect("me", "c1", "asked.example.com", 443)
	if holds := told(1); holds[0] != 0 {
		t.Errorf("with nobody there it is held for %v", holds)
	}
	leave, err := a.human.Present(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	a.Connect("me", "c1", "asked.example.com", 443)
	if holds := told(2); holds[1] != 20*time.Second {
		t.Errorf("with a human there it is held for %v", holds)
	}
	open := func() []ledger.Request {
		t.Helper()
		list, err := a.human.Requests("me", 0, ledger.RequestOpen)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	for end := time.Now().Add(10 * time.Second); (len(open()) == 0 || open()[0].Count < 2) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	want := []ledger.Request{{State: ledger.RequestOpen, Owner: "me", Sandbox: "c1", Kind: ledger.ForDomain, Subject: "asked.example.com", Process: "7 curl", Source: ledger.ByConnection, Count: 2}}
	if diff := cmp.Diff(want, open(), cmpopts.IgnoreFields(ledger.Request{}, "ID", "At", "Last", "Lineage", "Expires", "Asked", "Held")); diff != "" {
		t.Errorf("the requests (-want +got):\n%s", diff)
	}
	a.Connect("me", "c1", "never.example.com", 443)
	if holds := told(3); holds[2] != 0 {
		t.Errorf("what is never granted is held for %v", holds)
	}
	a.Connect("me", "c1", "free.example.com", 8443) // another port than is granted
	if holds := told(4); holds[3] != 20*time.Second {
		t.Errorf("another port: %v", holds)
	}
	a.Connect("me", "c1", "free.example.com", 443)
	told(5)
	if !a.reaches(t, "c1", "free.example.com") {
		t.Error("what is granted unasked was not granted")
	}
	// A gateway that is lost, and comes back.
	a.Lose()
	a.Connect("me", "c1", "asked.example.com", 443)
	if holds := told(6); holds[5] != 20*time.Second {
		t.Errorf("after the gateway was lost: %v", holds)
	}
	leave()
	a.Connect("me", "c1", "asked.example.com", 443)
	if holds := told(7); holds[6] != 0 {
		t.Errorf("after the human left: %v", holds)
	}
}

func TestWhatIsNeverGrantedIsDeniedInNewSandboxes(t *testing.T) {
	presets, err := egress.Shipped(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Agent, Presets: presets, Policy: sandboxtest.Policy(t, "[egress]\nnever = [\"api.openai.com\"]")})
	if _, err := m.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateCheckpoint(t.Context(), manager.Agent("me"), "box", "one", ""); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "box:one", Names: []string{"copy"}}); err != nil || got[0].Err != nil {
		t.Fatal(got, err)
	}
	for _, name := range []string{"box", "copy"} {
		e, err := m.Egress(t.Context(), manager.Agent("me"), name)
		if err != nil {
			t.Fatal(err)
		}
		p := egress.Policy{Mode: e.Mode, Rules: e.Rules}
		if _, ok := p.Allows("api.openai.com", 443); ok {
			t.Errorf("%s: the mode's preset brings it along", name)
		}
		if _, ok := p.Allows("api.anthropic.com", 443); !ok {
			t.Errorf("%s: and others don't work", name)
		}
		denials := 0
		for _, g := range e.Rules {
			if g.Deny {
				denials++
			}
		}
		if denials != 1 {
			t.Errorf("%s has %d denials", name, denials)
		}
	}
}

func TestConnectionsAreCountedOnRecordAndBounded(t *testing.T) {
	synctest.Test(t, connectionsAreCountedOnRecordAndBounded)
}

func connectionsAreCountedOnRecordAndBounded(t *testing.T) {
	a := newAsked(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { a.agent.KeepWatched(ctx, func(err error) { t.Error(err) }) })
	for range 50 {
		a.Connected("me", "c1", "often.example.com", 443, sandbox.ConnectionAllowed)
	}
	for i := range 1000 {
		a.Connected("me", "c1", fmt.Sprintf("h%d.example.com", i), 443, sandbox.ConnectionDenied)
	}
	a.Connect("me", "c2", "last.example.com", 443)
	for end := time.Now().Add(10 * time.Second); len(a.Holds("me", "c2")) == 0; time.Sleep(5 * time.Millisecond) { // all was heard by then
		if time.Now().After(end) {
			t.Fatal("nobody listens")
		}
	}
	cancel()
	watching.Wait() // what was counted is put down
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := ledger.Open(a.path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	list, err := again.Records(ledger.Query{Kind: ledger.Connected})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, r := range list {
		count[r.Target] += r.Count
	}
	// It may have been put down in between, and a new count begun.
	if count["often.example.com"] != 50 || count["many places"] == 0 || len(list) > 2*210 {
		t.Errorf("%d lines, %d often, %d many", len(list), count["often.example.com"], count["many places"])
	}
}
