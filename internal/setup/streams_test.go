package setup

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// playStreams is a user of the service who works by what no tool does: streams go through it byte for byte, a command ends when it is
// given up, what is to be kept nowhere is kept nowhere, and a console goes on when its terminal has gone. pixels has a variable, too.
func playStreams(t *testing.T, pixels func(env string, args ...string) *exec.Cmd, home string) {
	t.Helper()
	if out, err := pixels("A=", "create", "streams", "--egress", "none").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	content := make([]byte, 20<<20)
	_, _ = rand.Read(content)
	through := pixels("A=", "exec", "streams", "cat")
	through.Stdin = bytes.NewReader(content)
	if out, err := through.Output(); err != nil || !bytes.Equal(out, content) {
		t.Errorf("of %d bytes %d came back: %v", len(content), len(out), err)
	}
	var errs bytes.Buffer
	failing := pixels("A=", "exec", "-e", "B=two", "-w", "/tmp", "-u", "root", "streams", "echo $(id -un) $PWD $B; echo trouble >&2; exit 7")
	failing.Stderr = &errs
	if out, _ := failing.Output(); string(out) != "root /tmp two\n" || errs.String() != "trouble\n" || failing.ProcessState.ExitCode() != 7 {
		t.Errorf("%q, %q, %s", out, errs.String(), failing.ProcessState)
	}
	keptNowhere(t, pixels, home)

	sleeping := pixels("A=", "exec", "streams", "echo begun; sleep 1234")
	begun, err := sleeping.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sleeping.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(begun, make([]byte, 6)); err != nil {
		t.Error(err)
	}
	_ = sleeping.Process.Signal(os.Interrupt) // its end tells
	if _ = sleeping.Wait(); sleeping.ProcessState.ExitCode() != 130 {
		t.Errorf("interrupted: %s", sleeping.ProcessState)
	}
	if out, err := pixels("A=", "exec", "streams", "pgrep -f 'sleep 123[4]'").Output(); err == nil {
		t.Errorf("what was interrupted goes on: %s", out)
	}
	playConsole(t, pixels)
	if out, err := pixels("A=", "destroy", "--force", "streams").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// keptNowhere gives a command and a run a variable from the caller's environment, which no file of the service has afterwards.
func keptNowhere(t *testing.T, pixels func(env string, args ...string) *exec.Cmd, home string) {
	t.Helper()
	config := filepath.Join("/tmp", fmt.Sprintf("pixels-test-%d.toml", os.Getpid())) // where another user can read it
	if err := os.WriteFile(config, []byte("[env]\nTOKEN = { forward = true }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(config)
	secret := rand.Text()
	out, err := pixels("TOKEN="+secret, "--config", config, "exec", "streams", `echo "$TOKEN"`).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != secret {
		t.Errorf("the variable came as %q, %v", out, err)
	}
	out, err = pixels("TOKEN="+secret, "--config", config, "exec", "-d", "streams", `echo "$TOKEN"`).Output()
	if err != nil {
		t.Error(err)
	}
	id := strings.TrimSpace(string(out))
	if out, err := pixels("A=", "wait", id).CombinedOutput(); err != nil {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := pixels("A=", "logs", id).Output(); err != nil || strings.TrimSpace(string(out)) != secret {
		t.Errorf("in the background it came as %q, %v", out, err)
	}
	if out, err := exec.Command("grep", "-rlF", secret, home).CombinedOutput(); err == nil || len(out) > 0 {
		t.Errorf("it is kept in %s", out)
	}
}

// playConsole joins a console from a real terminal, leaves it, and comes back.
func playConsole(t *testing.T, pixels func(env string, args ...string) *exec.Cmd) {
	t.Helper()
	console := func() (s *terminal) {
		return newTerminal(t, pixels("TERM=xterm-256color", "console", "streams"))
	}
	first := console()
	first.shows("$ ")
	first.types("echo con$((1+1))sole\r")
	first.shows("con2sole")
	first.types("\x1c")
	first.shows("left the session console of streams")
	first.ends()
	if out, err := pixels("A=", "sessions", "-q", "streams").Output(); err != nil || string(out) != "console\n" {
		t.Errorf("%q, %v", out, err)
	}
	second := console()
	second.shows("con2sole")      // as it was
	_ = second.cmd.Process.Kill() // its terminal has gone
	second.ends()
	third := console()
	third.shows("con2sole")
	third.types("exit\r")
	third.shows("the session console of streams has ended")
	third.ends()
}

// terminal is a program on a terminal of its own, by script(1).
type terminal struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser

	mu   sync.Mutex
	said bytes.Buffer
}

func newTerminal(t *testing.T, program *exec.Cmd) *terminal {
	t.Helper()
	var line []string
	for _, word := range program.Args {
		line = append(line, "'"+word+"'")
	}
	s := &terminal{t: t, cmd: exec.Command("script", "-qfec", strings.Join(line, " "), "/dev/null")}
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, s.cmd.Stdout, s.cmd.Stderr = in, s, s
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *terminal) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(b)
}

func (s *terminal) types(keys string) {
	if _, err := io.WriteString(s.in, keys); err != nil {
		s.t.Error(err)
	}
}

// shows waits until the terminal has shown something.
func (s *terminal) shows(text string) {
	s.t.Helper()
	said := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		said = s.said.String()
		s.mu.Unlock()
		if strings.Contains(said, text) {
			return
		}
	}
	s.t.Errorf("the terminal never showed %q but:\n%q", text, said)
}

func (s *terminal) ends() {
	s.t.Helper()
	_ = s.in.Close()
	ended := make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		s.t.Error("it does not end")
		_ = s.cmd.Process.Kill()
	}
}
