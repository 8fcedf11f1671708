package gateway_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixels/egress"
	"pixels/egress/gateway"
)

func TestWhatIsAllowedPasses(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com", "allowed.example.com:22,7,8443")
	if got, err := get(b.dial("allowed.example.com", 80), "allowed.example.com", "/x"); err != nil || !strings.Contains(got, "you asked allowed.example.com for /x") {
		t.Errorf("HTTP: %q %v", got, err)
	}
	for _, port := range []int{443, 8443} {
		if got, err := b.secure(b.dial("allowed.example.com", port), "allowed.example.com"); err != nil || !strings.Contains(got, "you asked") {
			t.Errorf("TLS on %d: %q %v", port, got, err)
		}
	}
	conn := b.dial("allowed.example.com", 22)
	line := make([]byte, 22)
	if _, err := io.ReadFull(conn, line); err != nil || string(line) != "hello from the server\n" {
		t.Errorf("a server that speaks first says %q %v", line, err)
	}
	if _, err := io.WriteString(conn, "and I"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, line[:5]); err != nil || string(line[:5]) != "and I" {
		t.Errorf("then %q %v", line[:5], err)
	}
	e := l.heard("one", gateway.Allowed, "allowed.example.com", 443)
	if e.Seq == 0 || e.Time.IsZero() {
		t.Errorf("the event %+v", e)
	}
	_ = conn.Close()
	if e := l.heard("one", gateway.Ended, "allowed.example.com", 22); e.Sent != 5 || e.Received != 27 {
		t.Errorf("the end of a connection: %+v", e)
	}
	if seen := l.inet.Seen(); len(seen) == 0 {
		t.Error("the internet saw nothing of it")
	}
}

func TestADenialIsSaidInTheClientsProtocol(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com")
	got, err := get(b.dial("denied.example.com", 80), "denied.example.com", "/")
	if err != nil || !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, "denied.example.com:80") || !strings.Contains(got, `allow_domain: domains ["denied.example.com"]`) {
		t.Errorf("HTTP: %q %v", got, err)
	}
	if _, err := b.secure(b.dial("denied.example.com", 443), "denied.example.com"); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("TLS: %v", err)
	}
	conn := b.dial("allowed.example.com", 5432)
	if _, err := io.WriteString(conn, "\x00\x01\x02"); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("other bytes: %d %v", n, err)
	}
	for _, port := range []uint16{80, 443} {
		l.heard("one", gateway.Denied, "denied.example.com", port)
	}
	l.heard("one", gateway.Denied, "allowed.example.com", 5432)
	denials := l.do(gateway.Request{Op: gateway.Denials, Sandbox: "one"}).Denials
	if len(denials) != 3 || denials[0].Domain != "denied.example.com" || denials[0].Count != 1 || denials[0].Reason == "" {
		t.Errorf("denials: %+v", denials)
	}
	time.Sleep(20 * time.Millisecond)
	if later := l.do(gateway.Request{Op: gateway.Denials, Sandbox: "one", Within: 10 * time.Millisecond}).Denials; len(later) != 0 {
		t.Errorf("denials of the last moment: %+v", later)
	}
	l.quiet()
}

func TestGrantsAndRevocationsAreInForceAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist)
	if _, err := b.secure(b.dial("allowed.example.com", 443), "allowed.example.com"); err == nil {
		t.Fatal("a sandbox without rules gets out")
	}
	b.set(egress.Allowlist, "allowed.example.com")
	granted := b.dial("allowed.example.com", 443)
	if _, err := b.secure(granted, "allowed.example.com"); err != nil {
		t.Fatalf("after the grant: %v", err)
	}
	_ = granted.Close()
	l.heard("one", gateway.Ended, "allowed.example.com", 443)
	slow := b.dial("allowed.example.com", 80)
	if _, err := fmt.Fprint(slow, "GET /slow HTTP/1.1\r\nHost: allowed.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if cut := b.set(egress.Allowlist, "other.example.org").Cut; cut != 1 {
		t.Errorf("the revocation cut %d connections", cut)
	}
	if _, err := io.Copy(io.Discard, slow); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("a connection after its revocation: %v", err)
	}
	l.heard("one", gateway.Cut, "allowed.example.com", 80)
}

func TestAWireIsTakenOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com")
	p := policy(t, egress.Allowlist)
	if _, err := l.Do(t.Context(), gateway.Request{Op: gateway.Take, Sandbox: "two", Policy: &p}); err == nil || !strings.Contains(err.Error(), "no wire is free") {
		t.Fatalf("a second one gets %v", err)
	}
	again := policy(t, egress.Allowlist, "allowed.example.com")
	if w := l.do(gateway.Request{Op: gateway.Take, Sandbox: "one", Policy: &again}).Wire; w.Number != b.wire {
		t.Errorf("the same one gets wire %d, not its %d", w.Number, b.wire)
	}
	index := l.do(gateway.Request{Op: gateway.Wires}).Wires[0].Index
	if _, err := l.Do(t.Context(), gateway.Request{Op: gateway.Delete, Index: index}); err == nil || !strings.Contains(err.Error(), "has the sandbox one on it") {
		t.Fatalf("a wire with a sandbox on it is deleted: %v", err)
	}
	l.do(gateway.Request{Op: gateway.Drop, Sandbox: "one"})
	if w := l.do(gateway.Request{Op: gateway.Wires}).Wires[0]; w.State != gateway.Used || w.Sandbox != "" {
		t.Errorf("a wire whose sandbox has gone: %+v", w)
	}
	if _, err := l.Do(t.Context(), gateway.Request{Op: gateway.Take, Sandbox: "two", Policy: &p}); err == nil {
		t.Fatal("a used wire is taken again")
	}
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = l.cmd.Wait()
	l.start()
	eventually(t, "the wire is known", func() bool { return len(l.do(gateway.Request{Op: gateway.Wires}).Wires) == 1 })
	if _, err := l.Do(t.Context(), gateway.Request{Op: gateway.Take, Sandbox: "two", Policy: &p}); err == nil {
		t.Fatal("a used wire is taken again after a restart")
	}
	if err := linkDel(l.space, "w0"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the wire is forgotten", func() bool { return len(l.do(gateway.Request{Op: gateway.Wires}).Wires) == 0 })
	if two := l.box("two", egress.None); two.wire != 0 {
		t.Errorf("the wire that was made anew is %d", two.wire)
	}
	l.do(gateway.Request{Op: gateway.Drop, Sandbox: "two"})
	for range 2 {
		l.do(gateway.Request{Op: gateway.Delete, Index: l.do(gateway.Request{Op: gateway.Wires}).Wires[0].Index})
		eventually(t, "the deleted wire is forgotten", func() bool { return len(l.do(gateway.Request{Op: gateway.Wires}).Wires) == 0 })
		if three := l.box("three", egress.None); three.wire != 0 {
			t.Errorf("the wire that was made after another was deleted is %d", three.wire)
		}
		l.do(gateway.Request{Op: gateway.Drop, Sandbox: "three"})
	}
}

func TestAfterARestartTheSamePolicyIsInForce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com")
	if _, err := b.secure(b.dial("allowed.example.com", 443), "allowed.example.com"); err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = l.cmd.Wait()
	l.inet.Seen()
	if conn, err := b.Dial(t.Context(), "tcp4", "198.51.100.10:443"); err == nil {
		t.Errorf("without a gateway there is a connection to %s", conn.RemoteAddr())
	}
	l.quiet()
	l.start()
	eventually(t, "the wire is known", func() bool { return len(l.do(gateway.Request{Op: gateway.Wires}).Wires) == 1 })
	if w := l.do(gateway.Request{Op: gateway.Wires}).Wires[0]; w.Sandbox != "one" {
		t.Fatalf("after a restart: %+v", w)
	}
	if _, err := b.secure(b.dial("allowed.example.com", 443), "allowed.example.com"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := b.secure(b.dial("denied.example.com", 443), "denied.example.com"); err == nil {
		t.Error("after a restart a denied name passes")
	}
}

func TestASuccessorLeavesConnectionsAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	b := l.box("one", egress.Allowlist, "allowed.example.com:7", "denied.example.com:7")
	echo := func(conn net.Conn, text string) error {
		_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := io.WriteString(conn, "\x00"+text); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, make([]byte, 1+len(text)))
		return err
	}
	kept, revoked := b.dial("allowed.example.com", 7), b.dial("denied.example.com", 7)
	for _, conn := range []net.Conn{kept, revoked} {
		if err := echo(conn, "before"); err != nil {
			t.Fatal(err)
		}
	}
	old := l.cmd
	if err := old.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old one lets go of its control socket", func() bool {
		conn, err := net.Dial("unix", l.config.Socket)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	l.start()
	for _, conn := range []net.Conn{kept, revoked} {
		if err := echo(conn, "under the successor"); err != nil {
			t.Errorf("a connection did not outlive the renewal: %v", err)
		}
	}
	if err := echo(b.dial("allowed.example.com", 7), "new"); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	b.set(egress.Allowlist, "allowed.example.com:7")
	eventually(t, "what the successor took back has ended", func() bool { return echo(revoked, "after") != nil })
	if err := echo(kept, "after"); err != nil {
		t.Errorf("what it did not take back ended: %v", err)
	}
	_ = kept.Close()
	eventually(t, "the old one ends with its last connection", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", old.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") Z ")
	})
}
