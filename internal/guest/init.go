// Package guest is what runs inside a sandbox as its first process: it makes a container that was just started into a
// machine that commands can run in, and no more. It starts no services. What it must do at every start it does before it
// writes the ready mark; afterwards it reaps, keeps the address and ends the sandbox in an orderly way.
package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is the folder of an image that holds the program. /sbin/init is a link to it there, and so are the programs that
// end a machine.
const Dir = "/usr/lib/pixels"

// ReadyMark is the file that is there once the sandbox has its host name and its mounts, and its address when it has a
// network card. It lies on a file system in memory, so that neither a restart nor a copy inherits it.
const ReadyMark = "/run/pixels/ready"

// grace is how long processes have to end by themselves when the sandbox is stopped.
const grace = 5 * time.Second

// sigHalt is SIGRTMIN+3, which asks systemd to halt; liblxc sends it where it takes an init for one.
const sigHalt = syscall.Signal(37)

// Exit codes of the commands wait and feed, where there is no such run, and where nobody reads what is written to it.
const (
	ExitNoRun   = 3
	ExitNoInput = 4
)

// Main runs the program that args names: the first process as init, or one of those that ask it to end the sandbox; or a
// command of the runner, by which a server runs things in a sandbox: exec, console, sessions, session, spawn, wait, runs, keep, who. It returns the exit code. As the
// first process it returns only when it failed.
func Main(args []string) int {
	var err error
	command := ""
	if len(args) > 1 {
		command = args[1]
	}
	switch name := filepath.Base(args[0]); {
	case name == "reboot":
		err = unix.Kill(1, unix.SIGINT)
	case name == "poweroff", name == "halt":
		err = unix.Kill(1, unix.SIGPWR)
	case name == filepath.Base(detachPath):
		err = runDetach()
	case command == "console":
		return runConsole(args[2:])
	case command == "sessions":
		err = runSessions(args[2:], os.Stdout)
	case command == "exec":
		return runExec(args[2:])
	case command == SessionCommand:
		err = runSession(os.Stdin, os.Stdout)
	case command == "spawn":
		err = runSpawn(args[2:])
	case command == "runner":
		err = runRunner(args[2:])
	case command == "wait":
		err = runWait(args[2:], os.Stdout)
	case command == "feed":
		err = runFeed(args[2:])
	case command == "keep":
		err = runKeep(args[2:], os.Stdin)
	case command == "runs":
		err = runRuns(os.Stdout)
	case command == "who":
		err = runWho(args[2:], os.Stdout)
	case command == "unplug":
		err = unplug()
	case os.Getpid() != 1:
		err = errors.New("this is the first process of a sandbox and runs as nothing else; images made by set-up have it as /sbin/init")
	default:
		err = run()
	}
	if errors.Is(err, errNoRun) {
		return ExitNoRun
	}
	if errors.Is(err, errNoInput) {
		return ExitNoInput
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(args[0]), err)
		return 1
	}
	return 0
}

// run is the life of the first process. It returns only when ending the sandbox failed.
func run() error {
	holdThreads()
	debug.SetGCPercent(20) // it allocates little and lives long, once in every sandbox
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGPWR, sigHalt, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	unix.Umask(0o022)
	for _, problem := range []error{mounts(), hostName()} {
		if problem != nil {
			fmt.Fprintln(os.Stderr, "init:", problem) // the console log; a sandbox with a fault is better than none
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first := make(chan struct{}, 1)
	go keepAddress(ctx, func() { first <- struct{}{} })
	for {
		select {
		case <-first:
			if err := markReady(); err != nil {
				fmt.Fprintln(os.Stderr, "init:", err)
			}
		case s := <-signals:
			switch s {
			case syscall.SIGCHLD:
				reap()
			case syscall.SIGINT:
				return end(unix.LINUX_REBOOT_CMD_RESTART, signals)
			default:
				return end(unix.LINUX_REBOOT_CMD_POWER_OFF, signals)
			}
		}
	}
}

// reap takes note of every process that ended, among them the orphans that the kernel hands to the first process.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}

// end asks all processes to end, then ends them, and with them the sandbox. Processes that were started from outside are
// nobody's children here, so that the list of processes tells who is left.
func end(how int, signals <-chan os.Signal) error {
	_ = unix.Kill(-1, unix.SIGTERM) // fails only when there is nobody left
	_ = unix.Kill(-1, unix.SIGCONT)
	for deadline := time.Now().Add(grace); !alone() && time.Now().Before(deadline); {
		select {
		case <-signals:
		case <-time.After(10 * time.Millisecond):
		}
		reap()
	}
	_ = unix.Kill(-1, unix.SIGKILL)
	unix.Sync()
	return fmt.Errorf("end the sandbox: %w", unix.Reboot(how))
}

// alone tells whether the first process is the only one that lives.
func alone() bool {
	for pid, p := range processes() {
		if pid != 1 && !p.zombie {
			return false
		}
	}
	return true
}

// markReady makes the ready mark.
func markReady() error {
	if err := os.MkdirAll(filepath.Dir(ReadyMark), 0o755); err != nil {
		return err
	}
	return os.WriteFile(ReadyMark, nil, 0o644)
}
