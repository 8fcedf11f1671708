package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/streams"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
	"pixels/tools"
)

// serveSocket serves MCP and streams on one socket, until the test ends or stop is called.
func serveSocket(t *testing.T) (path string, stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(context.Background())
	session := tools.Session{
		Manager:    manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.None}),
		Operations: tools.NewOperations(ctx),
		Caller:     manager.Agent("nobody"),
	}
	handler := streams.New(session.Manager, func(r *http.Request) manager.Caller { return Caller(r.Context(), manager.Agent("")) }, zerolog.Nop())
	served := make(chan error, 1)
	go func() { served <- ServeSocket(ctx, path, "test", session, handler, zerolog.Nop()) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("the server ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server does not end")
		}
		session.Operations.Wait()
	})
	t.Cleanup(stop)
	return path, stop
}

func streamsOf(path string) *streams.Client {
	return streams.NewClient(func(ctx context.Context) (net.Conn, error) { return DialSocket(ctx, path) }, nil)
}

// withBox makes a sandbox by MCP on a socket, which is that of the user at its other end.
func withBox(t *testing.T, path string) *streams.Client {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var box struct{ Owner string }
	if err := c.Call(t.Context(), "create_sandbox", map[string]any{"name": "box"}, &box); err != nil || box.Owner != me.Username {
		t.Fatalf("%+v, %v", box, err)
	}
	return streamsOf(path)
}

// One socket speaks MCP and streams: commands with their streams byte for byte, however much, and as they come.
func TestASocketCarriesStreamsBesideMCP(t *testing.T) {
	path, _ := serveSocket(t)
	c := withBox(t, path)
	content := make([]byte, 5<<20)
	_, _ = rand.Read(content)
	var out, errs bytes.Buffer
	got, err := c.Stream(t.Context(), manager.ExecRequest{Name: "box", Shell: "cat; echo trouble >&2; exit 7"}, manager.Streams{In: bytes.NewReader(content), Out: &out, Err: &errs})
	if err != nil || got.ExitCode != 7 || !bytes.Equal(out.Bytes(), content) || errs.String() != "trouble\n" {
		t.Errorf("%+v, %d bytes, %q, %v", got, out.Len(), errs.String(), err)
	}
	// What comes is passed on at once, in both directions.
	fromUs, toCommand := io.Pipe()
	fromCommand, toUs := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Stream(t.Context(), manager.ExecRequest{Name: "box", Argv: []string{"cat"}}, manager.Streams{In: fromUs, Out: toUs, Err: io.Discard})
		ended <- err
	}()
	for _, word := range []string{"one", "two"} {
		b := make([]byte, 3)
		if _, err := toCommand.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(fromCommand, b); err != nil || string(b) != word {
			t.Errorf("%q, %v", b, err)
		}
	}
	_ = toCommand.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// Without input it is an empty one; variables come along, and a timeout holds.
	out.Reset()
	got, err = c.Stream(t.Context(), manager.ExecRequest{Name: "box", Shell: "cat; echo $A $B", Env: map[string]string{"A": "1"}, Unkept: map[string]string{"A": "9", "B": "2"}}, manager.Streams{Out: &out, Err: &errs})
	if err != nil || got.ExitCode != 0 || out.String() != "1 2\n" {
		t.Errorf("%+v, %q, %v", got, out.String(), err)
	}
	got, err = c.Stream(t.Context(), manager.ExecRequest{Name: "box", Shell: "sleep 100", Timeout: 100 * time.Millisecond}, manager.Streams{Out: &out, Err: &errs})
	if err != nil || !got.TimedOut || got.ExitCode != 124 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Stream(t.Context(), manager.ExecRequest{Name: "nobody", Shell: "true"}, manager.Streams{}); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "there are: box") {
		t.Error(err)
	}
	if _, err := c.Sessions(t.Context(), "nobody", ""); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// A command ends when it is given up, also where it takes none of its input, and when the server ends.
func TestWhatIsGivenUpEndsByTheSocket(t *testing.T) {
	path, stop := serveSocket(t)
	c := withBox(t, path)
	endless := endless{}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	begun := time.Now()
	_, err := c.Stream(ctx, manager.ExecRequest{Name: "box", Shell: "sleep 100"}, manager.Streams{In: endless, Out: io.Discard, Err: io.Discard})
	if !errors.Is(err, context.Canceled) || time.Since(begun) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(begun), err)
	}
	time.AfterFunc(200*time.Millisecond, stop)
	if _, err = c.Stream(t.Context(), manager.ExecRequest{Name: "box", Shell: "sleep 100"}, manager.Streams{In: endless, Out: io.Discard, Err: io.Discard}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a command that a server's end ended came to its end with %v", err)
	}
	stop()
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }
