package incus

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pixels/egress"
	"pixels/internal/fakenet"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// asking is a lab whose connections are watched and put to a human, with what that human and an agent call.
type asking struct {
	*lab
	agent *manager.Manager
	human *manager.Human
	store *ledger.Store
	owner string
}

// patient gives a sandbox on a busy machine more time to say whose a connection is than a Manager does.
type patient struct{ *Backend }

func (p patient) Process(ctx context.Context, id string, port uint16) (command, call string, err error) {
	return p.Backend.Process(context.WithoutCancel(ctx), id, port)
}

func newAsking(t *testing.T, l *lab) *asking {
	t.Helper()
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	a := &asking{lab: l, store: store, owner: l.box(t, "one", egress.Allowlist).Owner}
	var door manager.Door
	a.agent, door = manager.NewWithDoor(patient{l.Backend}, manager.Defaults{Store: store})
	a.human = door.Human("test")
	if _, err := a.agent.List(t.Context(), manager.Agent(a.owner), manager.ListRequest{}); err != nil { // the owner is one of this store's from now on
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.agent.KeepWatched(ctx, func(err error) { t.Logf("the watch says: %v", err) })
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	leave, err := a.human.Present(context.Background(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave)
	soon(t, "connections are watched", func() bool {
		a.try(t, "one", "tcp", "watched.example.com:80", "-host", "watched.example.com")
		list, err := store.Requests("", 0)
		return err == nil && len(list) > 0
	})
	return a
}

// reach has the sandbox reach for a name, and returns what came of it.
func (a *asking) reach(t *testing.T, name string) <-chan string {
	got := make(chan string, 1)
	go func() { got <- a.try(t, "one", "tcp", name+":80", "-host", name) }()
	return got
}

// asked waits for the open request for a domain.
func (a *asking) asked(t *testing.T, domain string) (r ledger.Request) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		list, err := a.store.Requests("", 0, ledger.RequestOpen)
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(list, func(r ledger.Request) bool { return r.Subject == domain }); i >= 0 {
			return list[i]
		}
		if time.Now().After(end) {
			t.Fatalf("nobody asks for %s: %+v", domain, list)
		}
	}
}

func TestABlockedConnectionIsHeldForAHuman(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := newAsking(t, l)
	got := a.reach(t, allowedName)
	r := a.asked(t, allowedName)
	for tries := 0; r.Process == "" && tries < 10; tries++ { // it may have been too busy to say
		a.reach(t, allowedName)
		soon(t, "it is asked once more", func() bool {
			before := r.Count
			r = a.asked(t, allowedName)
			return r.Count > before
		})
	}
	if !strings.Contains(r.Process, "attempt tcp "+allowedName) || r.Sandbox != "one" || r.Owner != a.owner {
		t.Errorf("%+v", r)
	}
	select {
	case text := <-got:
		t.Fatalf("it is not held: %q", text)
	case <-time.After(1500 * time.Millisecond):
	}
	if seen := l.seen(); seen != "" {
		t.Errorf("while it is held the internet saw %s", seen)
	}
	if given, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.human.Digest(r), By: "test", For: time.Hour}); err != nil || len(given.Names) != 1 {
		t.Fatalf("%+v, %v", given, err)
	}
	if text := <-got; !strings.Contains(text, "200 OK") {
		t.Errorf("approved: %q", text)
	}
	if _, err := a.human.Deny(t.Context(), a.human.As(a.owner), "one", []string{allowedName}); err != nil {
		t.Fatal(err)
	}
	got = a.reach(t, deniedName)
	r = a.asked(t, deniedName)
	if _, err := a.human.Refuse(t.Context(), manager.Approval{ID: r.ID, By: "test", Answer: "no"}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if text := <-got; !strings.Contains(text, "403") || time.Since(start) > 15*time.Second {
		t.Errorf("refused: %q after %s", text, time.Since(start))
	}
	// What was refused is not asked again, and not held.
	start = time.Now()
	if text := <-a.reach(t, deniedName); !strings.Contains(text, "403") || time.Since(start) > 15*time.Second {
		t.Errorf("refused again: %q after %s", text, time.Since(start))
	}
	// From a connection on record a way leads back to the call that ran the command. A busy sandbox may say too late whose
	// a connection is.
	tries := 0
	soon(t, "call, command and connection are on record together", func() bool {
		tries++
		domain := fmt.Sprintf("joined%d.example.com", tries)
		caller := manager.Agent(a.owner)
		caller.Call = ledger.NewCall()
		ran := make(chan error, 1)
		go func() {
			_, err := a.agent.Exec(t.Context(), caller, manager.ExecRequest{Name: "one", Shell: "attempt tcp " + domain + ":80 -host " + domain})
			ran <- err
		}()
		joined := a.asked(t, domain)
		if _, err := a.human.Refuse(t.Context(), manager.Approval{ID: joined.ID, By: "test", Answer: ""}); err != nil {
			t.Fatal(err)
		}
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(7 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // connections are put down every 5 s
			list, err := a.store.Records(ledger.Query{Call: caller.Call})
			kinds := map[ledger.Kind]ledger.Record{}
			for _, r := range list {
				kinds[r.Kind] = r
			}
			if err == nil && kinds[ledger.Decided].Tool == "exec" && kinds[ledger.Executed].Code != nil && strings.Contains(kinds[ledger.Connected].Process, "attempt tcp "+domain) {
				return true
			}
		}
		return false
	})
	// A grant for one connection is one.
	got = a.reach(t, "once.example.com")
	l.inet.Name("once.example.com", fakenet.Site)
	r = a.asked(t, "once.example.com")
	if _, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.human.Digest(r), Scope: policy.Once}); err != nil {
		t.Fatal(err)
	}
	<-got
	// It stays used when the sandbox was stopped and started, which gives it another wire.
	soon(t, "the grant is used up", func() bool {
		e, err := l.Egress(t.Context(), l.boxes["one"])
		return err == nil && slices.ContainsFunc(e.Rules, func(g egress.Grant) bool { return g.Once == r.ID && g.Spent })
	})
	if err := errors.Join(l.SetState(t.Context(), l.boxes["one"], sandbox.Stopped), l.SetState(t.Context(), l.boxes["one"], sandbox.Running)); err != nil {
		t.Fatal(err)
	}
	got = a.reach(t, "once.example.com")
	a.asked(t, "once.example.com")
	if again := a.asked(t, "once.example.com"); again.ID == r.ID {
		t.Errorf("a second connection asks no new question: %+v", again)
	}
	if _, err := a.human.Refuse(t.Context(), manager.Approval{ID: a.asked(t, "once.example.com").ID, By: "test"}); err != nil {
		t.Fatal(err)
	}
	if text := <-got; !strings.Contains(text, "403") {
		t.Errorf("a second connection: %q", text)
	}
	// A wider answer ends narrower questions; a denial of less stands; what was granted is seen, and taken back.
	ask := func(domain string) ledger.Request {
		t.Helper()
		got, err := a.agent.Allow(t.Context(), manager.Agent(a.owner), manager.AllowRequest{Name: "one", Domains: []string{domain}, Reason: "a test"})
		if err != nil {
			t.Fatal(err)
		}
		return got.Requests[0]
	}
	if _, err := a.human.Deny(t.Context(), a.human.As(a.owner), "one", []string{"no.example.org"}); err != nil {
		t.Fatal(err)
	}
	narrow, wide := ask("narrow.example.org"), ask("*.example.org")
	if got, err := a.human.Approve(t.Context(), manager.Approval{ID: wide.ID, Seen: a.human.Digest(wide), By: "test"}); err != nil || len(got.Standing) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if r, err := a.human.Request(narrow.ID); err != nil || r.State != ledger.RequestGranted || !strings.Contains(r.Answer, wide.ID) {
		t.Errorf("%+v, %v", r, err)
	}
	if list, err := a.human.Grants(t.Context(), a.owner, "one"); err != nil || !slices.ContainsFunc(list, func(g manager.Standing) bool { return g.Request == wide.ID }) {
		t.Errorf("%+v, %v", list, err)
	}
	if _, names, err := a.human.RevokeRequest(t.Context(), wide.ID, "test"); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	// One that nobody used is the wire's: it is no key of the sandbox, which a copy would take along, and ends with a stop.
	asked, err := a.agent.Allow(t.Context(), manager.Agent(a.owner), manager.AllowRequest{Name: "one", Domains: []string{"unused.example.com"}, Reason: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	r = asked.Requests[0]
	if _, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.human.Digest(r), Scope: policy.Once}); err != nil {
		t.Fatal(err)
	}
	once := func(g egress.Grant) bool { return g.Once == r.ID }
	if e, err := l.Egress(t.Context(), l.boxes["one"]); err != nil || !slices.ContainsFunc(e.Rules, once) {
		t.Errorf("it is not shown: %+v, %v", e.Rules, err)
	}
	if s, err := l.Get(t.Context(), a.owner, "one"); err != nil || slices.ContainsFunc(s.Rules, once) {
		t.Errorf("it is kept with the sandbox: %+v, %v", s.Rules, err)
	}
	if err := errors.Join(l.SetState(t.Context(), l.boxes["one"], sandbox.Stopped), l.SetState(t.Context(), l.boxes["one"], sandbox.Running)); err != nil {
		t.Fatal(err)
	}
	if e, err := l.Egress(t.Context(), l.boxes["one"]); err != nil || slices.ContainsFunc(e.Rules, once) {
		t.Errorf("another wire has it: %+v, %v", e.Rules, err)
	}
}

// TestBenchmarkRequests measures how long a question and its answer take.
func TestBenchmarkRequests(t *testing.T) {
	onlyToMeasure(t)
	l := newLab(t)
	a := newAsking(t, l)
	var ask, pass []time.Duration
	for i := range benchChanges {
		name := fmt.Sprintf("bench%d.example.com", i)
		l.inet.Name(name, fakenet.Site)
		start := time.Now()
		got := a.reach(t, name)
		r := a.asked(t, name)
		ask = append(ask, time.Since(start))
		start = time.Now()
		if _, err := a.human.Approve(t.Context(), manager.Approval{ID: r.ID, Seen: a.human.Digest(r)}); err != nil {
			t.Fatal(err)
		}
		<-got
		pass = append(pass, time.Since(start))
	}
	slices.Sort(ask)
	slices.Sort(pass)
	p95 := func(d []time.Duration) float64 { return d[len(d)*95/100].Seconds() * 1000 }
	fmt.Printf("%-58s %8.2f ms  %28s\n", "a connection until its request can be seen, p95", p95(ask), "bound 1000")
	fmt.Printf("%-58s %8.2f ms  %28s\n", "an approval until its connection has passed, p95", p95(pass), "bound 200")
}
