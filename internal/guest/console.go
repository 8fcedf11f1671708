package guest

import (
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A console is a login shell on a terminal. As a session it is kept by tmux, so that it goes on when whoever was at the terminal
// has gone, and anybody can join it; where there is no tmux it is a shell that ends with its terminal.

// ExitDetached is the exit code of a console whose session goes on.
const ExitDetached = 90

// tmuxConf is the configuration of the sessions' tmux.
//
//go:embed tmux.conf
var tmuxConf []byte

const (
	tmuxConfPath = "/run/pixels/tmux.conf"
	// tmuxSocket is the name of the sessions' own tmux, for each user: one that the user runs is another.
	tmuxSocket = "pixels"
	// detachPath is a command that leaves a session.
	detachPath = "/usr/local/bin/detach"
)

// runConsole is a console on the terminal that the program's streams are. It returns the exit code of a shell that is no session.
func runConsole(args []string) int {
	var o order
	var session string
	f := flag.NewFlagSet("console", flag.ContinueOnError)
	o.flags(f)
	f.StringVar(&session, "session", "", "`name` of the session to be in; without one the shell ends with its terminal")
	if err := f.Parse(args); err != nil {
		return exitFailed
	}
	if err := awaitReady(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	if err := takeUnkept(o.unkept); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	o.tty = true
	o.argv = []string{loginShell(), "-l"}
	if session == "" {
		code, _ := o.run(os.Stdin, os.Stdout, os.Stderr, listen(), func(int) {})
		return code
	}
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		fmt.Fprintln(os.Stderr, "there is no tmux in this sandbox: this shell ends with its terminal")
		code, _ := o.run(os.Stdin, os.Stdout, os.Stderr, listen(), func(int) {})
		return code
	}
	if err := prepareTmux(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	o.stays = true
	session = strings.ReplaceAll(session, ".", inTmux)
	o.argv = append([]string{tmux, "-u", "-L", tmuxSocket, "-f", tmuxConfPath, "new-session", "-A", "-s", session, "--"}, o.argv...)
	code, _ := o.run(os.Stdin, os.Stdout, os.Stderr, listen(), func(int) {})
	o.argv = []string{tmux, "-L", tmuxSocket, "has-session", "-t", "=" + session}
	o.tty = false
	if there, _ := o.run(nil, nil, nil, nil, func(int) {}); there == 0 {
		return ExitDetached
	}
	return code
}

func loginShell() string {
	for _, path := range []string{os.Getenv("SHELL"), "/bin/bash"} {
		if _, err := exec.LookPath(path); err == nil {
			return path
		}
	}
	return "/bin/sh"
}

// prepareTmux puts the configuration in its place, and the command detach where there is none.
func prepareTmux() error {
	if err := os.MkdirAll(filepath.Dir(tmuxConfPath), 0o755); err != nil {
		return err
	}
	part := tmuxConfPath + "." + strconv.Itoa(os.Getpid())
	if err := os.WriteFile(part, tmuxConf, 0o644); err != nil {
		return err
	}
	if err := os.Rename(part, tmuxConfPath); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if to, err := os.Readlink(detachPath); err == nil && to != self && filepath.Dir(to) == Dir {
		_ = os.Remove(detachPath) // that of another version
	}
	_ = os.MkdirAll(filepath.Dir(detachPath), 0o755)
	if err := os.Symlink(self, detachPath); err != nil && !errors.Is(err, fs.ErrExist) {
		fmt.Fprintf(os.Stderr, "no command detach here, Ctrl+\\ leaves: %v\n", err)
	}
	return nil
}

// runDetach leaves the session that it is called in.
func runDetach() error {
	if os.Getenv("TMUX") == "" {
		return errors.New("this is no session that could be left: exit ends the shell")
	}
	return exec.Command("tmux", "detach-client").Run()
}

// Session is a console session that goes on.
type Session struct {
	Name     string `json:"name"`
	Attached int    `json:"attached"` // how many terminals are on it
	Created  int64  `json:"created"`  // Unix time, seconds
	Command  string `json:"command"`  // what runs in it
}

// runSessions writes a user's sessions as JSON.
func runSessions(args []string, out io.Writer) error {
	var o order
	f := flag.NewFlagSet("sessions", flag.ContinueOnError)
	o.flags(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	o.argv = []string{"tmux", "-u", "-L", tmuxSocket, "list-sessions", "-F", "#{session_name}\t#{session_attached}\t#{session_created}\t#{pane_current_command}"}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	got := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(read, maxSessions))
		got <- b
	}()
	_, _ = o.run(nil, write, nil, nil, func(int) {}) // without sessions, or tmux, there is nothing
	_ = write.Close()
	all := []Session{}
	for line := range strings.Lines(string(<-got)) {
		f := strings.SplitN(strings.TrimSpace(line), "\t", 4)
		if len(f) != 4 {
			continue
		}
		s := Session{Name: strings.ReplaceAll(f[0], inTmux, "."), Command: f[3]}
		s.Attached, _ = strconv.Atoi(f[1])
		s.Created, _ = strconv.ParseInt(f[2], 10, 64)
		all = append(all, s)
	}
	return json.NewEncoder(out).Encode(all)
}

// maxSessions bounds what is read of tmux's list, in bytes.
const maxSessions = 32 << 10

// inTmux stands for a dot in a session's name, for tmux takes that for the beginning of something else.
const inTmux = "·"

// leaveTerminal gives up the controlling terminal, so that the command can have it.
func leaveTerminal() {
	signal.Ignore(syscall.SIGHUP) // which giving it up sends
	_ = unix.IoctlSetInt(0, unix.TIOCNOTTY, 0)
}
