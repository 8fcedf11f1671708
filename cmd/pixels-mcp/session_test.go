package main

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The session that the first release was announced with, typed word by word on a real terminal.
func TestTheAnnouncedSession(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "announced").raced()
	w := newTerminal(p, 100, 30)
	w.types("pixels create base --egress agent --console")
	w.shows("pixel@base:~$")
	w.types("echo $((6*7)) >ready; detach")
	w.shows("left the session console of base, which goes on: `pixels console base` comes back to it")
	for _, line := range []struct{ typed, shown string }{
		{"pixels checkpoint create base --label ready", "base:ready"},
		{"pixels create feature-auth --from base:ready", "Created feature-auth in"},
		{"pixels create fix-bug-123 --from base:ready", "Created fix-bug-123 in"},
		{"pixels checkpoint list base", "LABEL"},
		{"pixels network allow feature-auth api.example.com", "api.example.com"},
		{"pixels network show feature-auth", "api.example.com"},
		{"pixels network deny feature-auth api.example.com", "api.example.com"},
		{"pixels exec fix-bug-123 cat ready", "42"},
	} {
		w.clear()
		w.types(line.typed)
		w.until(line.shown+" and a prompt", func(screen string) bool {
			typed, rest, ok := strings.Cut(screen, "\n")
			return ok && strings.Contains(typed, line.typed[:20]) && strings.Contains(rest, line.shown) && strings.HasSuffix(strings.TrimSpace(rest), "$")
		})
	}
	for _, name := range []string{"feature-auth", "fix-bug-123"} {
		w.clear()
		w.types("pixels destroy " + name)
		w.shows("Destroy " + name + " with all its files and checkpoints? [y/N]")
		w.types("y")
		w.shows("Destroyed " + name)
	}
	w.clear()
	w.types("pixels destroy base")
	w.shows("[y/N]")
	w.types("")
	w.shows("nothing was destroyed")
	if got := p.does("list", "-q"); got != "base\n" {
		t.Errorf("there is %q", got)
	}
}

// clientOf returns the process of a console.
func clientOf(t *testing.T, p *typist, name string) int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		out, _ := exec.Command("pgrep", "-f", "^pixels console "+name+"$").Output() // none is an exit code
		if pid, err := strconv.Atoi(strings.TrimSpace(string(out))); err == nil {
			return pid
		}
	}
	t.Fatalf("there is no one console of %s", name)
	return 0
}

// A session outlives its client, its connection and its terminal, and shows what it showed.
func TestASessionOutlivesItsTerminal(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "outlives")
	name := strings.ReplaceAll(p.owner, "outlives", "box") // which no other process names
	p.does("create", name, "--egress", "none")
	w := newTerminal(p, 90, 25)
	w.types("pixels console " + name)
	w.ends("~$")
	w.types("echo mark-$((40+2)); export KEPT=yes")
	w.shows("mark-42")
	for how, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "crashed": syscall.SIGQUIT, "ended": syscall.SIGTERM, "hung up": syscall.SIGHUP} {
		if err := syscall.Kill(clientOf(t, p, name), signal); err != nil {
			t.Fatal(err)
		}
		switch signal {
		case syscall.SIGKILL, syscall.SIGQUIT: // by which the runtime ends the process as it does when it panics
			w.shows("$ pixels console " + name) // on the screen as it was before
			w.types("")
		default:
			w.shows("interrupted: the session console of " + name + " goes on")
		}
		w.clear()
		w.types("stty -a | grep -c ' icanon'; printf 'mouse-%s\\n' off")
		w.shows("mouse-off")
		if screen := w.screen(); !strings.Contains(screen, "\n1\n") {
			t.Errorf("%s: the terminal is not as it was:\n%s", how, screen)
		}
		out := ""
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(out, "nobody is on it"); time.Sleep(100 * time.Millisecond) {
			if out = p.does("sessions", name); time.Now().After(deadline) {
				t.Fatalf("%s: there are %s", how, out)
			}
		}
		w.types("pixels console " + name)
		w.shows("mark-42")
		w.types("echo $KEPT")
		w.shows("yes")
	}
	w.types("vi -u NONE /etc/hosts 2>/dev/null || less /etc/passwd")
	w.shows("root:x:0:0")
	w.must("resize-window", "-x", "70", "-y", "18")
	w.until("a page of 18 lines", func(screen string) bool {
		return strings.Count(strings.TrimRight(screen, "\n"), "\n") == 17 && strings.Contains(screen, "root:x:0:0")
	})
	w.presses("q")
	w.types("stty size")
	w.shows("18 70")
	w.presses("C-\\")
	w.shows("left the session console of " + name)
	w.types("pixels console " + name + " -s second.one")
	w.ends("~$")
	w.types("exit")
	w.shows("the session second.one of " + name + " has ended")
	w.types("pixels console --no-persist " + name)
	w.ends("~$")
	w.types("exit 5")
	w.shows("the shell in " + name + " has ended")
	if out := p.does("sessions", "-q", name); out != "console\n" {
		t.Errorf("there are %q", out)
	}
}

// Several terminals are on one session; a sandbox that ends, ends them with a reason.
func TestTerminalsShareASession(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "share")
	p.does("create", "box", "--egress", "none")
	p.does("stop", "box")
	w := newTerminal(p, 80, 24)
	w.types("pixels console box")
	w.ends("~$")
	other := *w
	w.must("new-window", "-d", "bash", "--norc", "--noprofile")
	other.pane = "1"
	other.shows("$")
	other.types("pixels console box")
	other.ends("~$")
	w.types("echo both-$((1+1))")
	other.shows("both-2")
	if out := p.does("sessions", "box"); !strings.Contains(out, "2 terminals") {
		t.Errorf("there are %s", out)
	}
	other.presses("C-\\")
	other.shows("left the session console of box")
	p.does("stop", "box")
	if screen := w.shows("the console ended: sandbox \"box\" is stopped"); !strings.Contains(screen, "box was stopped: started in") {
		t.Errorf("that it was started is not said:\n%s", screen)
	}
	w.clear()
	w.types("pixels console box")
	w.ends("~$")
	p.does("destroy", "--force", "box")
	w.shows("the console ended: sandbox \"box\" is gone")
	w.types("stty -a | grep -c ' icanon'")
	w.shows("\n1\n")
}

// A console reads a pipe as a shell does.
func TestAConsoleInAPipe(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "inpipe")
	p.does("create", "box", "--egress", "none")
	p.in = "cd /tmp\necho $PWD $((6*7))\nexit 4\n"
	if out, errs, code := p.types("console", "box"); code != 4 || out != "/tmp 42\n" {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	p.fails(2, "letters, digits, dots", "console", "box", "-s", "a b")
	p.fails(3, "there are: box", "console", "nobody")
}

// A terminal is put back also when what ran on it by exec is cut off: modes that it had set are taken back.
func TestATerminalIsPutBackWhenExecIsCutOff(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "cutoff")
	p.does("create", "box", "--egress", "none")
	w := newTerminal(p, 80, 24)
	mouse := func() string {
		return strings.TrimSpace(w.must("display-message", "-p", "-t", w.pane, "#{mouse_any_flag}#{alternate_on}"))
	}
	w.types(`pixels exec -t box "printf '\033[?1049h\033[?1000h'; echo in-it; sleep 1000"`)
	w.until("what runs in it", func(screen string) bool { return strings.Contains(screen, "in-it") && mouse() == "11" })
	out, err := exec.Command("pgrep", "-f", "^pixels exec -t box .*sleep 1000").Output()
	pid, e := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil || e != nil {
		t.Fatalf("there is no one exec: %q, %v", out, err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.shows("interrupted")
	if got := mouse(); got != "00" {
		t.Errorf("left set are %s", got)
	}
	w.types("stty -a | grep -c ' icanon'")
	w.shows("\n1\n")
}
