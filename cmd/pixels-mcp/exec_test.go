package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// random returns so many random bytes.
func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// What goes through exec comes out as it went in, byte for byte.
func TestExecIsAPipe(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "pipe")
	p.does("create", "box", "--egress", "none")
	data := random(t, 40<<20)
	p.in = string(data)
	if got := p.does("exec", "box", "sha256sum"); !strings.HasPrefix(got, sum(data)) {
		t.Errorf("what comes in is another: %s", got)
	}
	p.in = string(data)
	p.does("exec", "box", "cat >/tmp/data")
	if got := p.does("exec", "box", "cat", "/tmp/data"); sum([]byte(got)) != sum(data) {
		t.Errorf("what comes out is another, of %d bytes", len(got))
	}
	p.in = "\x00\x01\r\n\xff\x1b[31m\x7f\n"
	if got, errs, code := p.types("exec", "box", "tee /tmp/x; cat /tmp/x >&2; exit 9"); got != "\x00\x01\r\n\xff\x1b[31m\x7f\n" || errs != got || code != 9 {
		t.Errorf("it became %q and %q, exit code %d", got, errs, code)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"a": data[:1000], "b c": data[:1<<20], "empty": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	p.does("exec", "box", "mkdir", "d")
	line := `cd "$DIR" && tar c . | "$PIXELS" --owner "$WHO" exec box -- tar x -C d && ` +
		`"$PIXELS" --owner "$WHO" exec box -- tar c -C d a "b c" empty | tar x -C "$BACK" && diff -r . "$BACK"`
	c := exec.CommandContext(t.Context(), "bash", "-o", "pipefail", "-c", line)
	c.Env = append(os.Environ(), "DIR="+dir, "BACK="+t.TempDir(), "PIXELS="+p.program, "WHO="+p.owner)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("tar there and back: %v: %s", err, out)
	}
}

// A gigabyte goes either way, in a few megabytes of memory.
func TestExecKeepsNothingOfWhatPasses(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "giga")
	p.does("create", "box", "--egress", "none")
	const size = 1 << 30
	watch := func(c *exec.Cmd) func() int {
		most := 0
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
				if m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status); err == nil && m != nil {
					most, _ = strconv.Atoi(string(m[1]))
				}
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		}()
		return func() int { close(stop); <-stopped; return most }
	}
	for name, c := range map[string]struct {
		in   io.Reader
		args []string
	}{
		"out": {nil, []string{"exec", "box", fmt.Sprintf("head -c %d /dev/zero", size)}},
		"in":  {io.LimitReader(zeros{}, size), []string{"exec", "box", "wc -c"}},
	} {
		out := &counter{}
		cmd := p.command(t.Context(), c.args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.in, out, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		peak := watch(cmd)
		err := cmd.Wait()
		memory := peak()
		passed := out.n
		if c.in != nil {
			passed, _ = strconv.Atoi(strings.TrimSpace(string(out.last)))
		}
		if err != nil || passed != size {
			t.Errorf("%s: %d bytes passed, %v", name, passed, err)
		}
		if memory > 100<<10 {
			t.Errorf("%s: it took %d KiB of memory", name, memory)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// counter counts what is written, and keeps the last of it.
type counter struct {
	n    int
	last []byte
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += len(b)
	c.last = append(c.last[:0], b[max(0, len(b)-20):]...)
	return len(b), nil
}

func TestExecHasTheCommandsOwnWays(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "ways").raced()
	p.does("create", "box", "--egress", "none", "-e", "FROM_BOX=1")
	for _, c := range []struct {
		code   int
		stdout string
		stderr string
		args   []string
	}{
		{0, "/etc/hostname\n", "", []string{"exec", "box", "ls", "/etc/hostname"}},
		{0, "-n x\n", "", []string{"exec", "box", "--", "printf", "%s\n", "-n x"}},
		{0, "a|b c|$HOME\n", "", []string{"exec", "box", "printf", "%s|%s|%s\n", "a", "b c", "$HOME"}},
		{0, "/home/pixel\n", "", []string{"exec", "box", "echo $HOME"}},
		{0, "root /tmp 1 2\n", "", []string{"exec", "-u", "root", "-w", "/tmp", "-e", "B=2", "box", `echo "$(id -un) $PWD $FROM_BOX $B"`}},
		{42, "", "", []string{"exec", "box", "exit 42"}},
		{127, "", "no-such-program: command not found", []string{"exec", "box", "no-such-program", "x"}},
		{126, "", "there is no such folder", []string{"exec", "-w", "/nowhere", "box", "true"}},
		{124, "", "after 1s", []string{"exec", "--timeout", "1s", "box", "sleep 60"}},
		{125, "", `pixels: sandbox "nobody" not found; there are: box`, []string{"exec", "nobody", "true"}},
		{125, "", `user "nobody-at-all" not found`, []string{"exec", "-u", "nobody-at-all", "box", "true"}},
		{2, "", "flags stand before the name", []string{"exec", "box", "-t", "ls"}},
		{2, "", "wants the name of a sandbox and a command", []string{"exec", "box"}},
		{2, "", "--timeout", []string{"exec", "--timeout", "soon", "box", "true"}},
		{2, "", "KEY=VALUE", []string{"exec", "-e", "A", "box", "true"}},
		{2, "", "no terminal", []string{"exec", "-t", "box", "true"}},
		{2, "", "--tty or --detach", []string{"exec", "-t", "-d", "box", "true"}},
	} {
		out, errs, code := p.types(c.args...)
		if code == 125 && c.code == 2 {
			t.Errorf("%v: a mistake in how it was called is no failure of exec", c.args)
		}
		if code != c.code || out != c.stdout || !strings.Contains(errs, c.stderr) || c.stderr == "" && errs != "" {
			t.Errorf("%v: exit code %d, %q, %q", c.args, code, out, errs)
		}
	}
	c := exec.CommandContext(t.Context(), "bash", "-c", `set -o pipefail; "$0" --owner "$1" exec box 'while :; do echo y; done' | head -n 1`, p.program, p.owner)
	if out, _ := c.Output(); string(out) != "y\n" { // the exit code is SIGPIPE's
		t.Errorf("into head came %q", out)
	}
	p.does("stop", "box")
}

// The first Ctrl-C ends the command inside, with all that it started; the second one waits for it no longer.
func TestCtrlCEndsTheCommandInside(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "ctrlc").raced()
	p.does("create", "box", "--egress", "none")
	begin := func(line string) (*exec.Cmd, *bytes.Buffer) {
		t.Helper()
		c := p.command(t.Context(), "exec", "box", line)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		errs := &bytes.Buffer{}
		c.Stderr = errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("begun\n"))); err != nil {
			t.Fatal(err)
		}
		return c, errs
	}
	end := func(c *exec.Cmd, signals ...os.Signal) int {
		t.Helper()
		for _, s := range signals {
			if err := c.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
		}
		_ = c.Wait() // the exit code tells
		return c.ProcessState.ExitCode()
	}
	c, errs := begin(`trap "" INT TERM HUP; sleep 1234 & setsid sleep 1234 & echo begun; sleep 1234; sleep 1234`)
	if code := end(c, os.Interrupt); code != exitInterrupted || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	if out := p.does("exec", "box", "pgrep -c 'slee[p]' || true"); out != "0\n" {
		t.Errorf("of what it started there is %s", out)
	}
	p.in = ""
	c, errs = begin(`echo begun; sleep 1234`)
	p.does("pause", "box") // so that nothing inside can end
	begun := time.Now()
	if code := end(c, os.Interrupt, syscall.SIGINT); code != exitInterrupted || !strings.Contains(errs.String(), "may still run") || time.Since(begun) > 10*time.Second {
		t.Errorf("twice: exit code %d after %s, %s", code, time.Since(begun), errs)
	}
	p.does("resume", "box")
}

// What runs in the background is found again, with all that it said.
func TestTheBackgroundIsFoundAgain(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "behind")
	p.does("create", "box", "--egress", "none")
	p.fails(3, "nothing in the background", "logs", "box")
	first := strings.TrimSpace(p.does("exec", "-d", "-e", "A=b", "box", `printf 'out\377\n'; echo "err $A" >&2; sleep 2; head -c 700000 /dev/zero; exit 3`))
	second := strings.TrimSpace(p.does("exec", "--detach", "box", "sleep", "1000"))
	if out, errs, _ := p.types("logs", "-f", first); !strings.HasPrefix(out, "out\xff\n") || len(out) != 5+700000 || errs != "err b\n" {
		t.Errorf("it said %d bytes and %q", len(out), errs)
	}
	if out, _, code := p.types("wait", first); code != 3 || out != first+": ended, exit code 3\n" {
		t.Errorf("waited for, exit code %d: %s", code, out)
	}
	if out, _, code := p.types("wait", "--json", first, first); code != 1 || !strings.Contains(out, `"exit_code": 3`) {
		t.Errorf("waited for twice, exit code %d: %s", code, out)
	}
	if out := p.does("logs", "--list", "box"); !strings.Contains(out, second) || !strings.Contains(out, "sleep 1000") {
		t.Errorf("there are %s", out)
	}
	if out := p.does("logs", "box"); out != "" {
		t.Errorf("the latest said %q", out)
	}
	p.fails(3, "not found", "wait", "box.nosuchrunatall")
	p.fails(1, "invalid", "wait", "box.x")
}
