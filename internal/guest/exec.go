package guest

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Exit codes of what could not be run or was ended, as shells and timeout(1) have them.
const (
	exitTimedOut      = 124
	exitFailed        = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// order says what to run, and as whom. The environment is that of the runner.
type order struct {
	uid, gid uint
	user     string // whose groups it has
	cwd      string // empty means home, or / where there is none
	timeout  time.Duration
	argv     []string
	feed     bool   // its stdin goes on behind what it is given, see feed.go
	unkept   string // names more of the environment, see unkept.go
	tty      bool   // its streams are a terminal, which is to be its controlling one
	stays    bool   // what it leaves behind goes on: it is no command's that is to end with all of its own
}

// flags adds an order's flags to a set.
func (o *order) flags(f *flag.FlagSet) {
	f.UintVar(&o.uid, "uid", 0, "user `id`")
	f.UintVar(&o.gid, "gid", 0, "group `id`")
	f.StringVar(&o.user, "user", "root", "user `name`")
	f.StringVar(&o.cwd, "cwd", "", "`folder` to run it in")
	f.BoolVar(&o.feed, "feed", false, "keep stdin open")
	f.StringVar(&o.unkept, "env", "", "`name` of variables that were kept for it")
	f.BoolVar(&o.tty, "tty", false, "the streams are a terminal")
	f.DurationVar(&o.timeout, "timeout", 0, "when to end it with all its children; 0 is never")
}

// orderArgs writes an order as the arguments that name it.
func orderArgs(o order) []string {
	return append([]string{
		"-uid", strconv.FormatUint(uint64(o.uid), 10), "-gid", strconv.FormatUint(uint64(o.gid), 10), "-user", o.user,
		"-cwd", o.cwd, "-timeout", o.timeout.String(), "-feed=" + strconv.FormatBool(o.feed), "--",
	}, o.argv...)
}

// runExec runs a command as its child with the streams that it has itself, and returns its exit code. SIGTERM and the
// like end the command with all that it started.
func runExec(args []string) int {
	var o order
	f := flag.NewFlagSet("exec", flag.ContinueOnError)
	o.flags(f)
	if err := f.Parse(args); err != nil {
		return exitFailed
	}
	o.argv = f.Args()
	if err := awaitReady(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	if err := takeUnkept(o.unkept); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	code, _ := o.run(os.Stdin, os.Stdout, os.Stderr, listen(), func(int) {})
	drained(os.Stdout, os.Stderr)
	return code
}

// bootTimeout bounds the boot of a sandbox.
const bootTimeout = 60 * time.Second

// awaitReady returns when the sandbox is ready. Of one with another first process it is not known.
func awaitReady() error {
	for deadline := time.Now().Add(bootTimeout); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ReadyMark); err == nil {
			return nil
		}
		if first, err := os.Readlink("/proc/1/exe"); err != nil || filepath.Dir(first) != Dir {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the sandbox was not ready within %s", bootTimeout)
		}
	}
}

// drained returns when all that lies in the pipes was read, or after a second. Incus reads them with a poll that times out
// every second, and takes the end of the process for the end of the output when both come at the same moment.
func drained(pipes ...*os.File) {
	for deadline := time.Now().Add(time.Second); waiting(pipes...) > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// cancelSignal asks a run's runner to end it.
const cancelSignal = syscall.SIGUSR1

// how says in which way a command came to its end.
type how int

const (
	byItself how = iota
	byTimeout
	byOrder  // a run that was cancelled
	bySignal // as when the sandbox is stopped
)

// listen returns the signals that end a command.
func listen() chan os.Signal {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, cancelSignal)
	return signals
}

// run runs a command to its end, of its own or by one of signals. started is called once it runs.
func (o order) run(stdin, stdout, stderr *os.File, signals <-chan os.Signal, started func(pid int)) (code int, ended how) {
	refuse := func(code int, format string, args ...any) (int, how) {
		if stderr != nil {
			fmt.Fprintf(stderr, format+"\n", args...)
		}
		return code, byItself
	}
	if len(o.argv) == 0 {
		return refuse(exitFailed, "there is no command")
	}
	if o.tty {
		_ = stdin.Chown(int(o.uid), int(o.gid)) // so that it can be opened by its name, too
		leaveTerminal()
	}
	if !o.stays {
		if err := adopt(); err != nil {
			return refuse(exitFailed, "run the command: %v", err)
		}
	}
	orphans := make(chan os.Signal, 1)
	signal.Notify(orphans, syscall.SIGCHLD)
	defer signal.Stop(orphans)
	path, err := exec.LookPath(o.argv[0])
	switch {
	case errors.Is(err, exec.ErrDot):
	case errors.Is(err, fs.ErrPermission):
		return refuse(exitNotExecutable, "%s: permission denied", o.argv[0])
	case err != nil:
		return refuse(exitNotFound, "%s: command not found", o.argv[0])
	}
	cmd := &exec.Cmd{Path: path, Args: o.argv, Dir: o.folder()}
	// A nil file in an interface is not nil.
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if stderr != nil {
		cmd.Stderr = stderr
	}
	if s, err := os.Stat(cmd.Dir); err != nil || !s.IsDir() {
		return refuse(exitNotExecutable, "cwd %s: there is no such folder", cmd.Dir)
	}
	// In a session of its own, what it does to its group leaves the runner alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: o.tty, Credential: &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid), Groups: groups(o.user, uint32(o.gid))}}
	if err := asCommand(cmd.Start); err != nil {
		if errors.Is(err, syscall.ENOEXEC) {
			return refuse(exitNotExecutable, "%s: this is no program", o.argv[0])
		}
		return refuse(exitNotExecutable, "%s: %v (may the user %s run it, and enter the cwd %s?)", o.argv[0], errors.Unwrap(err), o.user, cmd.Dir)
	}
	started(cmd.Process.Pid)
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its state says all
		close(done)
	}()
	var timeout <-chan time.Time
	if o.timeout > 0 {
		timeout = time.After(o.timeout)
	}
	for {
		select {
		case <-done:
			return exitCode(cmd.ProcessState), byItself
		case <-orphans:
			reapOrphans(cmd.Process.Pid)
			continue
		case <-timeout:
			ended, code = byTimeout, exitTimedOut
		case s := <-signals:
			ended, code = bySignal, 128+int(s.(syscall.Signal))
			if s == cancelSignal {
				ended, code = byOrder, 128+int(syscall.SIGTERM)
			}
		}
		if o.stays {
			_ = cmd.Process.Signal(syscall.SIGHUP) // it may have ended
		} else if err := killTree(); err != nil {
			return refuse(exitFailed, "end the command: %v", err)
		}
		<-done
		return code, ended
	}
}

// folder is where a command runs.
func (o order) folder() string {
	if o.cwd != "" {
		return o.cwd
	}
	if home := os.Getenv("HOME"); home != "" {
		if s, err := os.Stat(home); err == nil && s.IsDir() {
			return home
		}
	}
	return "/"
}

func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// groups returns the groups that /etc/group gives a user, its own among them.
func groups(user string, own uint32) []uint32 {
	ids := []uint32{own}
	file, err := os.Open("/etc/group")
	if err != nil {
		return ids
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		f := strings.Split(lines.Text(), ":")
		if len(f) != 4 || !slices.Contains(strings.Split(f[3], ","), user) {
			continue
		}
		if id, err := strconv.ParseUint(f[2], 10, 32); err == nil && !slices.Contains(ids, uint32(id)) {
			ids = append(ids, uint32(id))
		}
	}
	return ids
}
