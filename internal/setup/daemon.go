package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pixels/incus"
	"pixels/internal/program"
)

// lxcfsDir is where lxcfs is mounted; liblxc has the path built in.
const lxcfsDir = "/var/lib/lxcfs"

// startTimeout is generous: after an unclean stop incusd brings pools, networks and instances back before it answers.
const startTimeout = 3 * time.Minute

// daemons starts lxcfs and incusd where they don't run.
func (j *job) daemons(ctx context.Context) error {
	j.lxcfs(ctx)
	start := time.Now()
	if p, err := incus.OpenProvisioner(ctx, j.Options.Incus); err == nil {
		s, err := p.Server(ctx)
		if err == nil {
			err = incus.CheckVersion(s.Version)
		}
		if err != nil {
			return err
		}
		j.had(start, "incus %s answers", s.Version)
		return nil
	} else if !errors.Is(err, incus.ErrUnreachable) {
		return err
	}
	if err := j.mayStart(); err != nil {
		return err
	}
	var err error
	if underSystemd() {
		err = startBySystemd(ctx)
	} else {
		err = startAlone(ctx, j.answers)
	}
	if err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	for !j.answers(ctx) {
		if time.Now().After(deadline) {
			return fmt.Errorf("incusd was started and does not answer: %s", j.whereLogs())
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	j.did(start, "incus %s started", incusVersion(ctx))
	return nil
}

// answers tells whether the configured Incus answers.
func (j *job) answers(ctx context.Context) bool {
	_, err := incus.OpenProvisioner(ctx, j.Options.Incus)
	return err == nil
}

// mayStart refuses to start an incusd beside one that a setting points to: two on one database ruin it for good.
func (j *job) mayStart() error {
	if os.Getenv("INCUS_DIR") != "" {
		return errors.New("INCUS_DIR is set, so that the Incus meant is not this machine's own: start that one, or unset INCUS_DIR, then run set-up again")
	}
	if socket := j.incusSocket(); socket != incus.DefaultSocket {
		return fmt.Errorf("no Incus answers at %s, and set-up starts only the one at %s: start it, or remove the setting (incus.socket or INCUS_SOCKET), then run set-up again", socket, incus.DefaultSocket)
	}
	return nil
}

// incusSocket is where the local Incus is expected.
func (j *job) incusSocket() string {
	for _, socket := range []string{j.Options.Incus.Socket, os.Getenv("INCUS_SOCKET")} {
		if socket != "" {
			return filepath.Clean(socket)
		}
	}
	return incus.DefaultSocket
}

// whereLogs says where to look when incusd does not come up, with the end of what is there.
func (j *job) whereLogs() string {
	if underSystemd() {
		return "see journalctl -u incus"
	}
	return fmt.Sprintf("the end of %s:\n%s", consoleLog, tail(consoleLog, 0))
}

// lxcfs makes guests see their own limits as their memory and CPUs. Sandboxes work without it, so that nothing here is
// more than a warning.
func (j *job) lxcfs(ctx context.Context) {
	loss := "without it sandboxes see the host's memory and CPUs; see `" + program.Name + " doctor`"
	start := time.Now()
	if lxcfsAlive() {
		j.had(start, "lxcfs mounted")
		return
	}
	// The mount of a killed lxcfs stays and answers every access with an error, and liblxc then fails to start anything.
	for mounted(lxcfsDir) {
		if err := unix.Unmount(lxcfsDir, unix.MNT_DETACH); err != nil {
			j.warn(loss, "the dead mount of lxcfs can't be removed: %v", err)
			return
		}
	}
	if underSystemd() {
		if out, err := exec.CommandContext(ctx, "systemctl", "restart", "lxcfs.service").CombinedOutput(); err != nil {
			j.warn(loss, "lxcfs did not start: %v: %s", err, bytes.TrimSpace(out))
			return
		}
	} else {
		if err := os.MkdirAll(lxcfsDir, 0o755); err != nil {
			j.warn(loss, "lxcfs did not start: %v", err)
			return
		}
		pid, err := detach("/var/log/lxcfs.log", nil, find("lxcfs"), lxcfsDir)
		if err != nil {
			j.warn(loss, "lxcfs did not start: %v", err)
			return
		}
		// Every guest leans on it: the kernel should take anything else first.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("-1000"), 0)
	}
	for range 100 {
		if lxcfsAlive() {
			j.did(start, "lxcfs started")
			return
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			break
		}
	}
	j.warn(loss, "lxcfs does not come up; is there a /dev/fuse? The end of its log: %s", tail("/var/log/lxcfs.log", 0))
}

// lxcfsAlive tells whether lxcfs serves its files: a mount alone proves nothing.
func lxcfsAlive() bool {
	_, err := os.ReadFile(filepath.Join(lxcfsDir, "proc/uptime"))
	return err == nil
}

// mounted tells whether something is mounted exactly on path.
func mounted(path string) bool {
	return slices.Contains(mountsUnder(path), path)
}

// startBySystemd leaves the start to the units of the package.
func startBySystemd(ctx context.Context) error {
	units := []string{"incus.socket", "incus.service"}
	// A unit that failed too often is not started again before this; one that never failed makes it fail.
	_ = exec.CommandContext(ctx, "systemctl", append([]string{"reset-failed"}, units...)...).Run()
	if out, err := exec.CommandContext(ctx, "systemctl", append([]string{"enable", "--now"}, units...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl enable --now %s: %w: %s; see journalctl -u incus", strings.Join(units, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// consoleLog is where the output of an incusd goes that set-up started.
const consoleLog = "/var/log/incus/incusd.console"

// startAlone starts incusd as its unit would, detached from this process, and waits until it answers or has ended.
func startAlone(ctx context.Context, answers func(context.Context) bool) error {
	if pid := RunningIncusd(); pid != 0 {
		// It may be busy with coming up; another one beside it would only fail on the database's lock.
		deadline := time.Now().Add(startTimeout)
		for alive(pid) {
			if answers(ctx) {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("incusd runs (process %d) and does not answer: see %s, end it (kill %d), then run set-up again", pid, consoleLog, pid)
			}
			if err := pause(ctx, 200*time.Millisecond); err != nil {
				return err
			}
		}
	}
	path := findIncusd()
	if path == "" {
		return errors.New("no incusd to start: " + byHand)
	}
	const log = "/var/log/incus/incus.log"
	if loader := filepath.Join(filepath.Dir(path), "incus-apparmor-load"); exists(loader) {
		_ = exec.CommandContext(ctx, loader).Run() // as the unit does; Incus says itself when AppArmor is off
	}
	for _, d := range []string{filepath.Dir(incus.DefaultSocket), filepath.Dir(log)} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return fmt.Errorf("prepare the start of incusd: %w", err)
		}
	}
	args := []string{"--logfile=" + log}
	if _, err := user.LookupGroup("incus-admin"); err == nil {
		args = append(args, "--group", "incus-admin")
	}
	env := []string{"PATH=" + filepath.Dir(path) + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	pid, err := detach(consoleLog, env, path, args...)
	if err != nil {
		return fmt.Errorf("start incusd: %w", err)
	}
	// The limits of the unit: an incusd with hundreds of instances holds more files than a shell may.
	_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}, nil)
	_ = unix.Prlimit(pid, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, nil)
	deadline := time.Now().Add(startTimeout)
	for !answers(ctx) {
		// Nobody else waits for this child, so that its end would go unseen until the deadline.
		var status unix.WaitStatus
		if got, _ := unix.Wait4(pid, &status, unix.WNOHANG, nil); got == pid {
			return fmt.Errorf("incusd ended at its start with status %d; the end of %s:\n%s", status.ExitStatus(), consoleLog, tail(consoleLog, 0))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("incusd (process %d) does not answer; the end of %s:\n%s", pid, consoleLog, tail(consoleLog, 0))
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// detach starts a daemon in a session of its own, with its output appended to log, and does not wait for it.
func detach(log string, env []string, path string, args ...string) (pid int, err error) {
	if path == "" {
		return 0, errors.New("it is not installed")
	}
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return 0, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.Env = append(daemonEnv(os.Environ()), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// daemonEnv keeps what a daemon needs of the environment it happens to be started from, and no more: the rest belongs to
// a session, and may hold its secrets.
func daemonEnv(env []string) []string {
	keep := []string{"LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return !slices.Contains(keep, key) && !slices.Contains(keep, strings.ToUpper(key))
	})
}

// RunningIncusd returns the process id of the incusd of this machine, or 0. Its own helpers are the same program with a subcommand.
func RunningIncusd() int {
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	here, _ := os.Readlink("/proc/self/ns/pid")
	for _, entry := range entries {
		b, err := os.ReadFile(entry)
		if err != nil {
			continue
		}
		argv := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		if filepath.Base(argv[0]) != "incusd" || len(argv) > 1 && !strings.HasPrefix(argv[1], "-") {
			continue
		}
		// One inside a container is in sight too, and none of this machine's.
		if ns, err := os.Readlink(filepath.Join(filepath.Dir(entry), "ns/pid")); err != nil || ns != here {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		return pid
	}
	return 0
}

// alive tells whether a process exists and is no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
