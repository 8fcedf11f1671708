package gateway_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pixels/egress"
	"pixels/egress/gateway"
)

func TestUpstreamDNSThatIsSlowOrBrokenHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	slow, other := l.box("slow", egress.Allowlist, "*.example.com"), l.box("other", egress.Allowlist, "10.99.0.1/32:7")
	l.inet.SlowDNS(3 * time.Second)
	start := time.Now()
	if got, err := slow.secure(slow.dial("allowed.example.com", 443), "allowed.example.com"); err != nil || time.Since(start) < 3*time.Second {
		t.Errorf("with slow DNS, after %s: %q %v", time.Since(start), got, err)
	}
	waiting := slow.dial("denied.example.com", 80)
	if _, err := waiting.Write([]byte("GET / HTTP/1.1\r\nHost: denied.example.com\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if other.resolve("allowed.example.com"); time.Since(start) > 2*time.Second {
		t.Errorf("another sandbox's question waits %s", time.Since(start))
	}
	if reply := l.do(gateway.Request{Op: gateway.Wires}); time.Since(start) > 2*time.Second {
		t.Errorf("the control channel waits %s for %d wires", time.Since(start), len(reply.Wires))
	}
	l.inet.SlowDNS(0)
	if got, err := get(slow.dial("absent.example.com", 80), "absent.example.com", "/"); !strings.Contains(got, "502") || !strings.Contains(got, "there is no such name") {
		t.Errorf("a name that is not there: %q %v", got, err)
	}
	l.inet.Name("none.example.com")
	if got, err := get(slow.dial("none.example.com", 80), "none.example.com", "/"); !strings.Contains(got, "502") && !strings.Contains(got, "403") {
		t.Errorf("a name without addresses: %q %v", got, err)
	}
}

func TestAFullDiskTakesAwayAndGivesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com", "other.example.org")
	if err := unix.Mount("pixels-test", l.config.Dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(l.config.Dir, unix.MNT_DETACH) })
	full := filepath.Join(l.config.Dir, "full")
	if err := os.WriteFile(full, bytes.Repeat([]byte{1}, 1<<20), 0o600); err == nil {
		t.Fatal("the disk isn't full")
	}
	p := policy(t, egress.Allowlist, "allowed.example.com", "denied.example.com")
	if _, err := l.Do(t.Context(), gateway.Request{Op: gateway.Set, Sandbox: "one", Policy: &p}); err == nil || !strings.Contains(err.Error(), "no space") || !strings.Contains(err.Error(), "taken from it") {
		t.Errorf("set: %v", err)
	}
	for name, good := range map[string]bool{"allowed.example.com": true, "other.example.org": false, "denied.example.com": false} {
		if _, err := b.secure(b.dial(name, 443), name); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.Do(t.Context(), gateway.Request{Op: gateway.Take, Sandbox: "two", Policy: &p}); err == nil {
		t.Error("a wire is taken whose policy can't be kept")
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	b.set(egress.Allowlist, "denied.example.com")
	if _, err := b.secure(b.dial("denied.example.com", 443), "denied.example.com"); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
