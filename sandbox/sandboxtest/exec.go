package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// ran is what a command left.
type ran struct {
	code           int
	stdout, stderr string
}

func (s Subject) run(t *testing.T, id string, c sandbox.Command) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	code, err := s.Exec(t.Context(), id, c)
	if err != nil {
		t.Fatalf("exec %v%s: %v", c.Argv, c.Shell, err)
	}
	return ran{code, stdout.String(), stderr.String()}
}

func execWhole(t *testing.T, s Subject, box sandbox.Sandbox) {
	for name, c := range map[string]struct {
		command sandbox.Command
		want    ran
	}{
		"argv is not for a shell":  {sandbox.Command{Argv: []string{"echo", "$HOME; 'x'", "a  b"}}, ran{0, "$HOME; 'x' a  b\n", ""}},
		"a shell line":             {sandbox.Command{Shell: `x=(a b); [[ ${#x[@]} == 2 ]] && echo "yes  $HOME"`}, ran{0, "yes  /home/pixel\n", ""}},
		"the streams are apart":    {sandbox.Command{Shell: "echo out; echo err >&2; exit 3"}, ran{3, "out\n", "err\n"}},
		"stdin arrives":            {sandbox.Command{Argv: []string{"cat"}, Stdin: strings.NewReader("given\x00\xff")}, ran{0, "given\x00\xff", ""}},
		"stdin is empty else":      {sandbox.Command{Argv: []string{"cat"}}, ran{0, "", ""}},
		"the environment":          {sandbox.Command{Shell: "echo $SET, $OVER, $NEW", Env: map[string]string{"OVER": "by command", "NEW": "a=b c"}}, ran{0, "by sandbox, by command, a=b c\n", ""}},
		"it runs as pixel at home": {sandbox.Command{Shell: "id -un; pwd"}, ran{0, "pixel\n/home/pixel\n", ""}},
		"as root when asked":       {sandbox.Command{Shell: "id -un; pwd; echo $HOME", User: "root"}, ran{0, "root\n/root\n/root\n", ""}},
		"elsewhere when asked":     {sandbox.Command{Argv: []string{"pwd"}, Cwd: "/usr"}, ran{0, "/usr\n", ""}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			if got := s.run(t, box.ID, c.command); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func execFailures(t *testing.T, s Subject, box sandbox.Sandbox) {
	if got := s.run(t, box.ID, sandbox.Command{Argv: []string{"no-such-program"}}); got.code != sandbox.ExitNotFound || !strings.Contains(got.stderr, "no-such-program") {
		t.Errorf("a missing program: %+v", got)
	}
	if got := s.run(t, box.ID, sandbox.Command{Shell: "no-such-program"}); got.code != sandbox.ExitNotFound || !strings.Contains(got.stderr, "no-such-program") {
		t.Errorf("a missing program in a shell: %+v", got)
	}
	if _, err := s.Exec(t.Context(), box.ID, sandbox.Command{Argv: []string{"true"}, User: "nobody-here"}); !errors.Is(err, sandbox.ErrNotFound) || !strings.Contains(err.Error(), "nobody-here") {
		t.Errorf("a user who is not there: %v", err)
	}
}

func execCancelled(t *testing.T, s Subject, box sandbox.Sandbox) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	start := time.Now()
	var stdout bytes.Buffer
	_, err := s.Exec(ctx, box.ID, sandbox.Command{
		Shell: "(while true; do echo x >>ticks; sleep 0.1; done) & echo begun; sleep 600", Stdout: &stdout,
	})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 30*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	if stdout.String() != "begun\n" {
		t.Errorf("what came before the end is %q", stdout.String())
	}
	ticks := s.output(t, box.ID, "cat ticks")
	if ticks == "" {
		t.Error("the child in the background never ran")
	}
	if later := s.output(t, box.ID, "sleep 0.5; cat ticks"); later != ticks {
		t.Errorf("a child went on: %d bytes, then %d", len(ticks), len(later))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Exec(ended, box.ID, sandbox.Command{Shell: "echo x >never"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before it began: %v", err)
	}
}

// firstWrite tells when something was first written to it.
type firstWrite struct {
	once  sync.Once
	first chan time.Time
	text  strings.Builder
}

func (w *firstWrite) Write(b []byte) (int, error) {
	w.once.Do(func() { w.first <- time.Now() })
	return w.text.Write(b)
}

func execStreams(t *testing.T, s Subject, box sandbox.Sandbox) {
	w := &firstWrite{first: make(chan time.Time, 1)}
	code, err := s.Exec(t.Context(), box.ID, sandbox.Command{Shell: "echo early; sleep 3; echo late", Stdout: w})
	if err != nil || code != 0 || w.text.String() != "early\nlate\n" {
		t.Fatalf("exit code %d, %v, %q", code, err, w.text.String())
	}
	if before := time.Since(<-w.first); before < time.Second {
		t.Errorf("what is written early comes %s before the end", before)
	}
	m := manager.New(s, manager.Defaults{})
	line := "x=0123456789; for i in 1 2 3 4 5 6 7; do x=$x$x$x$x; done; echo first; echo $x; printf 'last\\377\\376'"
	r, err := m.Exec(t.Context(), manager.Agent(s.Owner), manager.ExecRequest{Name: "box", Shell: line})
	if err != nil || !r.Truncated || len(r.Stdout) > 25_000 || !strings.HasPrefix(r.Stdout, "first\n0123") || !strings.HasSuffix(r.Stdout, "789\nlast\uFFFD") ||
		!strings.Contains(r.Stdout, "bytes cut here") {
		t.Errorf("%d bytes, %.60q ... %q, %v", len(r.Stdout), r.Stdout, r.Stdout[max(0, len(r.Stdout)-30):], err)
	}
	// One that takes long holds nobody up.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Exec(ctx, box.ID, sandbox.Command{Shell: "sleep 60"})
		ended <- err
	}()
	if got := s.output(t, box.ID, "echo meanwhile"); got != "meanwhile" {
		t.Errorf("beside a long one it is %q", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the long one: %v", err)
	}
}
