package incus

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/egress"
	"pixels/internal/fakenet"
	"pixels/sandbox"
)

// oomKills is how many processes of an instance the kernel has killed for want of memory.
func (l *lab) oomKills(t *testing.T, id string) (n int) {
	t.Helper()
	state, _, err := l.server.with(context.Background()).GetInstanceState(id)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", state.Pid))
	if err != nil {
		t.Fatal(err)
	}
	file := ""
	for line := range strings.Lines(string(lines)) {
		// The payload's process may be in a group of its own, below the one that has the limit.
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		group, _, _ := strings.Cut(f[2], "/.lxc")
		switch f[1] {
		case "memory":
			file = filepath.Join("/sys/fs/cgroup/memory", group, "memory.oom_control")
		case "":
			if at := filepath.Join("/sys/fs/cgroup", group, "memory.events"); file == "" {
				file = at
			}
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("%s says no oom_kill: %s", file, text)
	return 0
}

// No sandbox, and no server outside, takes the gateway from others: not by connections, not by bytes, not by questions.
func TestNobodyTakesTheGatewayFromOthers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.inet.Name("steady.example.com", fakenet.OtherSite)
	l.box(t, "good", egress.Allowlist, "steady.example.com:7")
	l.box(t, "none", egress.Allowlist)
	l.box(t, "some", egress.Allowlist, "allowed.example.com:*")
	l.box(t, "more", egress.Allowlist, "allowed.example.com:*")
	l.box(t, "open", egress.Unrestricted)
	for _, id := range l.boxes {
		sh(t, l.Backend, id, "ulimit -n 8000 || true; sysctl -qw net.ipv4.tcp_fin_timeout=1 || echo 1 >/proc/sys/net/ipv4/tcp_fin_timeout")
	}
	before := l.oomKills(t, l.wires.name)
	pid := l.worker(t)
	attack := func(box string, args ...string) func() string {
		return func() string { return l.try(t, box, args...) }
	}
	for _, c := range []struct {
		name    string
		attacks []func() string
	}{
		{"whole buffers of half hellos to a denied name", []func() string{attack("none", "open", "denied.example.com:443", "hello", "3000", "61000", "3")}},
		{"half hellos of two", []func() string{attack("some", "open", "allowed.example.com:443", "hello", "1000", "15000", "3"), attack("more", "open", "allowed.example.com:443", "hello", "1000", "15000", "3")}},
		{"connections that say nothing", []func() string{attack("some", "open", "allowed.example.com:443", "nothing", "3000", "0", "3"), attack("none", "open", "denied.example.com:80", "nothing", "3000", "0", "3")}},
		{"half requests", []func() string{attack("some", "open", "allowed.example.com:80", "head", "2000", "60000", "3"), attack("more", "open", "allowed.example.com:80", "head", "2000", "60000", "3")}},
		{"requests without end", []func() string{attack("some", "open", "allowed.example.com:80", "request", "1000", "0", "3"), attack("more", "open", "allowed.example.com:80", "request", "1000", "0", "3")}},
		{"bytes that nobody reads", []func() string{attack("some", "open", "allowed.example.com:9", "fetch", "600", "5000000", "4"), attack("more", "open", "allowed.example.com:9", "fetch", "600", "5000000", "4")}},
		{"bytes for who doesn't read", []func() string{attack("some", "open", "allowed.example.com:9006", "push", "600", "1000000", "4"), attack("more", "open", "allowed.example.com:9006", "push", "600", "1000000", "4")}},
		{"half questions by TCP", []func() string{attack("none", "open", "198.51.100.53:53", "question", "3000", "40000", "3"), attack("some", "open", "198.51.100.53:53", "question", "3000", "40000", "3")}},
		{"lookups", []func() string{attack("none", "lookups", "example.com", "3"), attack("some", "lookups", "example.com", "3")}},
		{"lookups that are passed on", []func() string{attack("open", "lookups", "example.com", "3"), attack("none", "lookups", "example.com", "3")}},
		{"a server's first line without end", []func() string{wrong(t, l, "some", "/line"), wrong(t, l, "more", "/line"), wrong(t, l, "some", "/line")}},
		{"a server's headers without end", []func() string{wrong(t, l, "some", "/head"), wrong(t, l, "more", "/head"), wrong(t, l, "more", "/early")}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			var all sync.WaitGroup
			said := make([]string, len(c.attacks)+1)
			all.Go(func() {
				var out bytes.Buffer
				code, err := l.Exec(ctx, l.boxes["good"], sandbox.Command{Argv: []string{"attempt", "steady", "steady.example.com:7", "4"}, User: "root", Stdout: &out, Stderr: &out})
				if said[0] = out.String(); err != nil || code != 0 || !strings.HasPrefix(said[0], "steady ") {
					t.Errorf("another sandbox notices: %s%d %v", said[0], code, err)
				}
			})
			for i, attack := range c.attacks {
				all.Go(func() { said[i+1] = attack() })
			}
			all.Wait()
			t.Logf("%q", said)
			if n := l.oomKills(t, l.wires.name); n != before {
				t.Errorf("the kernel killed %d processes of the gateway for want of memory", n-before)
				before = n
			}
			if now := l.worker(t); now != pid {
				t.Error("the gateway was started again")
				pid = now
			}
		})
	}
	now, err := l.Egress(t.Context(), l.boxes["some"])
	full := 0
	for _, d := range now.Denials {
		if strings.Contains(d.Reason, "share of the gateway's memory") {
			full += d.Count
		}
	}
	if err != nil || full < 1000 {
		t.Errorf("of connections beyond its share egress counts %d, %v: %+v", full, err, now.Denials)
	}
	l.placesComeBack(t)
}

// placesComeBack looks whether what connections took comes back when their clients are gone, though the server never closes.
func (l *lab) placesComeBack(t *testing.T) {
	t.Helper()
	for range 3 {
		if said := l.try(t, "some", "leave", "allowed.example.com:9005", "400"); said != "left 400" {
			t.Errorf("connections that were left hold their places: %s of 400", said)
		}
		time.Sleep(8 * time.Second) // the sandbox's kernel forgets its end after one, and is asked every three
	}
	if said := l.try(t, "some", "tcp", "allowed.example.com:80", "-host", allowedName); !strings.Contains(said, "you asked") {
		t.Errorf("after connections that were left: %s", said)
	}
}

// wrong asks a server that answers wrongly.
func wrong(t *testing.T, l *lab, box, path string) func() string {
	return func() string {
		return fmt.Sprintf("%.60s", l.try(t, box, "tcp", "allowed.example.com:8081", "-say", `GET `+path+` HTTP/1.1\r\nHost: allowed.example.com\r\nConnection: close\r\n\r\n`))
	}
}

// worker is the process of the gateway's that serves.
func (l *lab) worker(t *testing.T) int {
	t.Helper()
	state, _, err := l.server.with(context.Background()).GetInstanceState(l.wires.name)
	if err != nil {
		t.Fatal(err)
	}
	return childOf(t, int(state.Pid))
}
