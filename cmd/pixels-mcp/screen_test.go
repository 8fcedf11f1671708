package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// terminalOf is a real terminal that a person sits at: tmux's, on this machine.
type terminalOf struct {
	t      *testing.T
	socket string
	pane   string
	env    []string
	wait   time.Duration // for what it is to show
}

// newTerminal is a terminal with a shell, whose prompt is "$ ", and pixels on its path, as the typist has it.
func newTerminal(p *typist, columns, rows int) *terminalOf {
	p.t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		p.t.Fatal("tmux is missing: scripts/test-tools.sh installs it")
	}
	w := &terminalOf{t: p.t, socket: fmt.Sprintf("pixels-test-%s", p.owner), pane: "0", wait: 30 * time.Second,
		env: append(append(os.Environ(), p.env...), "PS1=$ ", "PIXELS_OWNER="+p.owner, "PATH="+filepath.Dir(p.program)+":"+os.Getenv("PATH"))}
	c := w.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(columns), "-y", fmt.Sprint(rows), "bash", "--norc", "--noprofile")
	if out, err := c.CombinedOutput(); err != nil {
		p.t.Fatalf("tmux: %v: %s", err, out)
	}
	p.t.Cleanup(func() { _ = w.tmux("kill-server").Run() }) // it may have ended
	w.shows("$")
	return w
}

func (w *terminalOf) tmux(args ...string) *exec.Cmd {
	c := exec.Command("tmux", append([]string{"-u", "-L", w.socket}, args...)...)
	c.Env = w.env
	return c
}

func (w *terminalOf) must(args ...string) string {
	w.t.Helper()
	out, err := w.tmux(args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

// types presses the keys of a line, and Enter.
func (w *terminalOf) types(line string) {
	w.t.Helper()
	w.must("send-keys", "-t", w.pane, "-l", line)
	w.must("send-keys", "-t", w.pane, "Enter")
}

// presses presses keys, as tmux calls them.
func (w *terminalOf) presses(keys ...string) {
	w.t.Helper()
	w.must(append([]string{"send-keys", "-t", w.pane}, keys...)...)
}

// screen is what the terminal shows.
func (w *terminalOf) screen() string {
	w.t.Helper()
	return w.must("capture-pane", "-p", "-J", "-t", w.pane)
}

// shows waits until the terminal shows a text, and returns all that it shows.
func (w *terminalOf) shows(text string) string {
	w.t.Helper()
	return w.until(text, func(screen string) bool { return strings.Contains(screen, text) })
}

// ends waits until the last line that is not empty has a text.
func (w *terminalOf) ends(text string) string {
	w.t.Helper()
	return w.until("at its end "+text, func(screen string) bool {
		lines := strings.Split(strings.TrimRight(screen, "\n "), "\n")
		return strings.Contains(lines[len(lines)-1], text)
	})
}

// within is the terminal, of which one waits longer.
func (w *terminalOf) within(wait time.Duration) *terminalOf {
	patient := *w
	patient.wait = wait
	return &patient
}

func (w *terminalOf) until(what string, is func(screen string) bool) string {
	w.t.Helper()
	for deadline := time.Now().Add(w.wait); ; time.Sleep(50 * time.Millisecond) {
		screen := w.screen()
		if is(screen) {
			return screen
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the terminal does not show %s, but:\n%s", what, screen)
		}
	}
}

// clear empties the screen.
func (w *terminalOf) clear() {
	w.t.Helper()
	w.types("clear")
	w.until("nothing but a prompt", func(screen string) bool { return strings.TrimSpace(screen) == "$" })
}
