package gateway_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"pixels/egress"
	"pixels/egress/gateway"
)

// answering makes the lab one that says of connections that are held how long to hold them.
func (l *lab) answering() *gateway.Client {
	l.t.Helper()
	conn, err := net.Dial("unix", l.config.Socket)
	if err != nil {
		l.t.Fatal(err)
	}
	c := gateway.NewClient(conn, nil)
	if _, err := c.Do(l.t.Context(), gateway.Request{Op: gateway.Watch, Answers: true}); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

// fetched is what came of a request in the background.
func (b *box) fetch(name string) <-chan string {
	b.t().Helper()
	conn := b.dial(name, 80)
	got := make(chan string, 1)
	go func() {
		text, err := get(conn, name, "/")
		if err != nil {
			text += err.Error()
		}
		got <- text
	}()
	return got
}

// holds is how many connections the gateway said that it holds.
func (l *lab) holds() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Verdict == gateway.Held {
			n++
		}
	}
	return n
}

func (l *lab) keep(b *box, domain string, d time.Duration) {
	l.t.Helper()
	l.do(gateway.Request{Op: gateway.Keep, Sandbox: b.name, Domain: domain, Port: 80, For: d})
}

func TestAHeldConnectionGoesThroughWithItsGrant(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist)
	if got := <-b.fetch("allowed.example.com"); !strings.Contains(got, "403") || l.holds() > 0 {
		t.Errorf("with nobody there to answer: %q, held %d times", got, l.holds())
	}
	answers := l.answering()
	got := b.fetch("allowed.example.com")
	if e := l.heard("one", gateway.Held, "allowed.example.com", 80); e.From == 0 {
		t.Errorf("the event has no port of the sandbox's: %+v", e)
	}
	l.keep(b, "allowed.example.com", time.Minute)
	b.set(egress.Allowlist, "other.example.org") // of no use to it, and no harm
	select {
	case text := <-got:
		t.Fatalf("it ended before there was an answer: %q", text)
	case <-time.After(1500 * time.Millisecond): // longer than it waits without an answer
	}
	b.set(egress.Allowlist, "allowed.example.com")
	if text := <-got; !strings.Contains(text, "200 OK") {
		t.Errorf("with the grant: %q", text)
	}

	got = b.fetch("denied.example.com")
	l.heard("one", gateway.Held, "denied.example.com", 80)
	l.keep(b, "denied.example.com", time.Minute)
	l.keep(b, "denied.example.com", 0)
	if text := <-got; !strings.Contains(text, "403") {
		t.Errorf("with a denial: %q", text)
	}
	// An answer is for those that wait, and not for those that come.
	start := time.Now()
	got = b.fetch("denied.example.com")
	l.heard("one", gateway.Held, "denied.example.com", 80)
	if text := <-got; !strings.Contains(text, "403") || time.Since(start) < 500*time.Millisecond {
		t.Errorf("without an answer: %q after %s", text, time.Since(start))
	}
	_ = answers.Close()
	eventually(t, "nobody answers any more", func() bool {
		before := l.holds()
		<-b.fetch("denied.example.com")
		return l.holds() == before
	})
}

func TestHeldConnectionsEndWithTheirSandboxAndAreBounded(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist)
	l.answering()
	var all []<-chan string
	for range 64 {
		all = append(all, b.fetch("denied.example.com"))
		l.heard("one", gateway.Held, "denied.example.com", 80)
	}
	l.keep(b, "denied.example.com", time.Minute)
	if text := <-b.fetch("denied.example.com"); !strings.Contains(text, "403") {
		t.Errorf("one more than may be held: %q", text)
	}
	// In the mode none nothing is held, and what was is not let through.
	b.set(egress.None)
	l.do(gateway.Request{Op: gateway.Drop, Sandbox: "one"})
	for _, got := range all {
		select {
		case text := <-got:
			if strings.Contains(text, "200 OK") {
				t.Errorf("a connection of a sandbox that has gone: %q", text)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it is held still")
		}
	}
}

// granted is a policy with grants that end, or are for one connection.
func granted(t *testing.T, as egress.Grant, rules ...string) egress.Policy {
	p := policy(t, egress.Allowlist, rules...)
	for i := range p.Rules {
		as.Rule = p.Rules[i].Rule
		p.Rules[i] = as
	}
	return p
}

func TestAGrantEndsByItself(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist)
	p := granted(t, egress.Grant{Until: time.Now().Add(1500 * time.Millisecond)}, "allowed.example.com")
	l.do(gateway.Request{Op: gateway.Set, Sandbox: "one", Policy: &p})
	open := b.dial("allowed.example.com", 80)
	if _, err := io.WriteString(open, "GET /slow HTTP/1.1\r\nHost: allowed.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	l.heard("one", gateway.Allowed, "allowed.example.com", 80)
	l.heard("one", gateway.Cut, "allowed.example.com", 80)
	if time.Now().Before(p.Rules[0].Until) {
		t.Error("it was cut before its end")
	}
	if text := <-b.fetch("allowed.example.com"); !strings.Contains(text, "403") {
		t.Errorf("after the end: %q", text)
	}
}

func TestAGrantForOneConnectionIsUsedOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist)
	p := policy(t, egress.Allowlist)
	once := granted(t, egress.Grant{Once: "r1", At: time.Now(), Until: time.Now().Add(time.Minute)}, "allowed.example.com").Rules[0]
	index := l.do(gateway.Request{Op: gateway.Status, Sandbox: "one"}).Wire.Index
	// A policy brings none along, whoever wrote it; and one for another wire is for nobody.
	smuggled := p
	smuggled.Rules = []egress.Grant{once}
	l.do(gateway.Request{Op: gateway.Set, Sandbox: "one", Policy: &smuggled})
	if text := <-b.fetch("allowed.example.com"); !strings.Contains(text, "403") {
		t.Errorf("by a policy: %q", text)
	}
	if _, err := l.Do(t.Context(), gateway.Request{Op: gateway.Once, Sandbox: "one", Index: index + 1, Grant: &once}); !errors.Is(err, gateway.ErrNoSandbox) {
		t.Errorf("for another wire: %v", err)
	}
	l.do(gateway.Request{Op: gateway.Once, Sandbox: "one", Index: index, Grant: &once})
	l.do(gateway.Request{Op: gateway.Set, Sandbox: "one", Policy: &p}) // what else changes doesn't take it
	open := b.dial("allowed.example.com", 80)
	if _, err := io.WriteString(open, "GET / HTTP/1.1\r\nHost: allowed.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if e := l.heard("one", gateway.Allowed, "allowed.example.com", 80); e.Once != "r1" {
		t.Errorf("the event does not name the grant: %+v", e)
	}
	if text := <-b.fetch("allowed.example.com"); !strings.Contains(text, "403") {
		t.Errorf("a second connection: %q", text)
	}
	// The same policy again, and a restart of the gateway, give it no second one.
	if cut := l.do(gateway.Request{Op: gateway.Set, Sandbox: "one", Policy: &p}).Cut; cut != 0 {
		t.Errorf("the same policy again cut %d", cut)
	}
	if text := <-b.fetch("allowed.example.com"); !strings.Contains(text, "403") {
		t.Errorf("with the same policy again: %q", text)
	}
	if _, err := io.WriteString(open, "GET / HTTP/1.1\r\nHost: allowed.example.com\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(open); err != nil || strings.Count(string(text), "200 OK") != 2 {
		t.Errorf("the connection that was let through: %q, %v", text, err)
	}
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = l.cmd.Wait()
	l.start()
	eventually(t, "the wire is known", func() bool { return len(l.do(gateway.Request{Op: gateway.Wires}).Wires) == 1 })
	if text := <-b.fetch("allowed.example.com"); !strings.Contains(text, "403") {
		t.Errorf("after a restart: %q", text)
	}
	// The same again is no second one, and another one is.
	l.do(gateway.Request{Op: gateway.Once, Sandbox: "one", Index: index, Grant: &once})
	if text := <-b.fetch("allowed.example.com"); !strings.Contains(text, "403") {
		t.Errorf("given again: %q", text)
	}
	once.Once, once.At = "r2", time.Now()
	l.do(gateway.Request{Op: gateway.Once, Sandbox: "one", Index: index, Grant: &once})
	open = b.dial("allowed.example.com", 80)
	if _, err := io.WriteString(open, "GET /slow HTTP/1.1\r\nHost: allowed.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	l.heard("one", gateway.Allowed, "allowed.example.com", 80)
	// A denial that is newer cuts it, and so does taking it back.
	no := policy(t, egress.Allowlist, "allowed.example.com")
	no.Rules[0].Deny, no.Rules[0].At = true, time.Now()
	if cut := l.do(gateway.Request{Op: gateway.Set, Sandbox: "one", Policy: &no}).Cut; cut != 1 {
		t.Errorf("denying it cut %d", cut)
	}
	l.do(gateway.Request{Op: gateway.Set, Sandbox: "one", Policy: &p})
	once.Once, once.At = "r3", time.Now()
	l.do(gateway.Request{Op: gateway.Once, Sandbox: "one", Index: index, Grant: &once})
	once.Until = time.Now()
	l.do(gateway.Request{Op: gateway.Once, Sandbox: "one", Index: index, Grant: &once})
	if text := <-b.fetch("allowed.example.com"); !strings.Contains(text, "403") {
		t.Errorf("taken back: %q", text)
	}
}
