package gateway_test

import (
	"net"
	"testing"
	"time"

	"pixels/egress"
	"pixels/egress/gateway"
)

// deaf is a connection to a server that reads, says nothing, and never closes.
func deaf(t *testing.T, l *lab, b *box) *net.TCPConn {
	t.Helper()
	conn := b.dial("allowed.example.com", 9005)
	if _, err := conn.Write([]byte("\x00a")); err != nil {
		t.Fatal(err)
	}
	l.heard("one", gateway.Allowed, "allowed.example.com", 9005)
	return conn
}

// A connection on which nobody says anything lives as long as both ends are there, and ends when one isn't.
func TestHowLongASilentConnectionLives(t *testing.T) {
	t.Parallel()
	t.Run("a client that sleeps", func(t *testing.T) {
		t.Parallel()
		l := newLabWith(t, shortPatience)
		b := l.box("one", egress.Allowlist, "allowed.example.com:*")
		conn := b.dial("allowed.example.com", 7)
		echo := func(text string) {
			t.Helper()
			if _, err := conn.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(text))
			if _, err := conn.Read(got); err != nil || string(got) != text {
				t.Fatalf("the answer is %q, %v", got, err)
			}
		}
		echo("\x00a")
		time.Sleep(8 * time.Second) // four times as long as anything may go unanswered
		echo("\x00b")
	})
	t.Run("a client that is gone without a word", func(t *testing.T) {
		t.Parallel()
		l := newLabWith(t, shortPatience)
		b := l.box("one", egress.Allowlist, "allowed.example.com:*")
		deaf(t, l, b)
		b.Down("eth0")
		l.heard("one", gateway.Ended, "allowed.example.com", 9005)
	})
	t.Run("a client that closed, and a server that doesn't", func(t *testing.T) {
		t.Parallel()
		l := newLabWith(t, shortPatience)
		b := l.box("one", egress.Allowlist, "allowed.example.com:*")
		b.Setting("net/ipv4/tcp_fin_timeout", "1")
		conn := deaf(t, l, b)
		_ = conn.Close()
		l.heard("one", gateway.Ended, "allowed.example.com", 9005)
	})
	t.Run("a client that closed one direction", func(t *testing.T) {
		t.Parallel()
		l := newLabWith(t, shortPatience)
		b := l.box("one", egress.Allowlist, "allowed.example.com:*")
		conn := deaf(t, l, b)
		_ = conn.CloseWrite()
		time.Sleep(6 * time.Second)
		_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err == nil || !err.(interface{ Timeout() bool }).Timeout() {
			t.Errorf("it was not waited for what the server says: %v", err)
		}
	})
}
