package incus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/guest"
	"pixels/sandbox"
)

// runners are the sessions that a sandbox has, by process id.
const runners = "pgrep -f '[p]ixels-init.* session$'"

func TestASessionServesOneCommandAfterTheOther(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "session")
	first := sh(t, b, made.ID, runners)
	if second := sh(t, b, made.ID, runners); first == "" || second != first {
		t.Errorf("the runner of two commands: %q, then %q", first, second)
	}
	run := func(c sandbox.Command) (string, int) {
		t.Helper()
		var out bytes.Buffer
		c.Stdout = &out
		code, err := b.Exec(t.Context(), made.ID, c)
		if err != nil {
			t.Fatal(err)
		}
		return out.String(), code
	}
	// Nothing of a command is the next one's.
	run(sandbox.Command{Shell: "cd /; umask 0; ulimit -n 64; export ONE=1; exit 3", Env: map[string]string{"SECRET": "1", "PATH": "/nowhere", "HOME": "/tmp"}, Cwd: "/usr"})
	if out, code := run(sandbox.Command{Shell: `echo "$PWD $ONE$SECRET $HOME $(umask)"; id -un; id -un >&2; test "$(ulimit -n)" -gt 64`}); out != "/home/pixel  /home/pixel 0022\npixel\n" || code != 0 {
		t.Errorf("after another command: %q, %d", out, code)
	}
	if out, _ := run(sandbox.Command{Shell: "trap '' TERM; kill -TERM 0; echo $?"}); out != "0\n" {
		t.Errorf("a command that signals its group: %q", out)
	}
	if again := sh(t, b, made.ID, runners); again != first {
		t.Errorf("the runner is another one: %q after %q", again, first)
	}
}

// What a command leaves behind outlives the end of a later one, by which all goes that this one started.
func TestWhatACommandLeavesOutlivesTheNext(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "leaves")
	sh(t, b, made.ID, "true") // in a session
	for _, line := range []string{"sleep 771 & disown", "setsid -f sleep 772 >/dev/null 2>&1", "(sleep 773 &) >&2"} {
		began := time.Now()
		sh(t, b, made.ID, line)
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s took %s", line, took)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := b.Exec(ctx, made.ID, sandbox.Command{Shell: "sleep 774 & sleep 775"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ended with %v", err)
	}
	if left := sh(t, b, made.ID, "pgrep -a sleep | cut -d' ' -f3 | sort | xargs"); left != "771 772 773" {
		t.Errorf("left is %s", left)
	}
}

func TestASessionIsKilled(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "killed-session")
	sh(t, b, made.ID, "true")
	// While it waits: by whom it can't be told, as nothing that a session runs survives its own killing.
	const killer = "setsid -f sh -c 'sleep 0.5; pkill -9 -f \"[p]ixels-init.* session$\"' >/dev/null 2>&1"
	sh(t, b, made.ID, killer)             // and its session ends
	sh(t, b, made.ID, "true")             // a new one
	soon(t, "it is killed", func() bool { // looked at without a session
		var out both
		_, err := b.exec(t.Context(), made.ID, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", runners + " | wc -l"}}, nil, &out, &out)
		return err == nil && strings.TrimSpace(out.String()) == "0"
	})
	if out := sh(t, b, made.ID, "echo works"); out != "works" {
		t.Errorf("after the kill of a session that waited: %q", out)
	}
	// While it runs something.
	sh(t, b, made.ID, killer)
	var out bytes.Buffer
	code, err := b.Exec(t.Context(), made.ID, sandbox.Command{Shell: "echo begun; sleep 20; echo ended", Stdout: &out})
	if err != nil || code != 137 || out.String() != "begun\n" {
		t.Errorf("a command whose session was killed: %d, %v, %q", code, err, out.String())
	}
	if out := sh(t, b, made.ID, "echo works"); out != "works" {
		t.Errorf("after the kill of a session at work: %q", out)
	}
}

func TestSessionsEndWithWhatTheyAreIn(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "ends-session")
	for range 2 {
		sh(t, b, made.ID, "true")
		if err := b.SetState(t.Context(), made.ID, sandbox.Stopped); err != nil {
			t.Fatal(err)
		}
		if err := b.SetState(t.Context(), made.ID, sandbox.Running); err != nil {
			t.Fatal(err)
		}
		if out := sh(t, b, made.ID, "echo works"); out != "works" {
			t.Errorf("after a restart: %q", out)
		}
	}
	// Of many at once some are kept, and with the server all end.
	other := openBackend(t, Config{})
	var wg sync.WaitGroup
	for range 2 * sessionsOfOne {
		wg.Go(func() {
			if _, err := other.Exec(t.Context(), made.ID, sandbox.Command{Shell: "sleep 1"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	count := func() int { return len(strings.Fields(sh(t, b, made.ID, runners))) }
	soon(t, "too many sessions end", func() bool { return count() == sessionsOfOne+1 })
	other.sessions.close()
	soon(t, "the sessions end with their server", func() bool { return count() == 1 })
	other.sessions.mu.Lock()
	defer other.sessions.mu.Unlock()
	if len(other.sessions.idle) != 0 {
		t.Errorf("%d sessions are kept", len(other.sessions.idle))
	}
}

// Root in a sandbox can make its runner say anything.
func TestASessionThatLies(t *testing.T) {
	t.Parallel()
	frame := func(kind guest.FrameKind, size uint32, body string) string {
		return string(binary.BigEndian.AppendUint32([]byte{byte(kind)}, size)) + body
	}
	taken := frame(guest.FrameTaken, 0, "")
	for what, said := range map[string]string{
		"nothing":                     "",
		"a piece of a frame":          "x\x00",
		"an end without a beginning":  frame(guest.FrameEnded, 15, `{"exit_code":0}`),
		"output before the beginning": frame(guest.FrameStdout, 1, "a"),
		"two beginnings":              taken + taken,
		"a long beginning":            frame(guest.FrameTaken, 1<<31, strings.Repeat("a", 1<<20)),
		"a long end":                  taken + frame(guest.FrameEnded, 1<<31, strings.Repeat("a", 1<<20)),
		"an end that is none":         taken + frame(guest.FrameEnded, 4, "true"),
		"an end without an end":       taken + frame(guest.FrameEnded, 100, `{"exit_code":0}`),
		"output without an end":       taken + frame(guest.FrameStdout, 1<<31, "a"),
		"an unknown frame":            taken + frame('?', 1, "a"),
	} {
		t.Run(strings.ReplaceAll(what, " ", "_"), func(t *testing.T) {
			stdin, requests := io.Pipe()
			go func() { _, _ = io.Copy(io.Discard, stdin) }()
			defer requests.Close()
			s := &session{requests: requests, frames: bufio.NewReader(strings.NewReader(said)), running: &running{ended: make(chan struct{}), err: errors.New("it was ended")}}
			close(s.running.ended)
			var out bytes.Buffer
			if end, err := s.run(guest.SessionRequest{}, &out, nil); err == nil {
				t.Errorf("it is believed: %+v", end)
			}
			if out.Len() > 1 {
				t.Errorf("%d bytes of output", out.Len())
			}
		})
	}
}
