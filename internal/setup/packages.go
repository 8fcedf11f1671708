package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// backportsFile is the source that set-up adds where Incus is only in backports.
const backportsFile = "/etc/apt/sources.list.d/pixels-backports.sources"

// logFile takes what the package tools print. A file and not a pipe: apt must not die of a closed pipe, half-way
// through dpkg, when set-up is killed.
const logFile = "/var/log/pixels-setup.log"

// need is a package and the program that tells whether it is there.
type need struct {
	pkg   string
	found func() bool
	incus bool // comes from the same suite as Incus
}

// needs is all that sandboxes want from the distribution.
func needs() []need {
	program := func(names ...string) func() bool {
		return func() bool { return slices.ContainsFunc(names, func(n string) bool { return find(n) != "" }) }
	}
	return []need{
		{"incus-base", func() bool { return findIncusd() != "" }, true},
		{"incus-client", program("incus"), true},
		{"lxcfs", program("lxcfs"), false},
		{"btrfs-progs", program("mkfs.btrfs"), false},
		{"nftables", program("nft"), false},
		{"dnsmasq-base", program("dnsmasq"), false},
		{"mmdebstrap", program("mmdebstrap", "debootstrap"), false},
		{"squashfs-tools", program("mksquashfs"), false},
		{"uidmap", program("newuidmap"), false},
		{"iproute2", program("ip"), false},
	}
}

// missing returns the packages whose programs are not there.
func missing(list []need) (names []string) {
	for _, n := range list {
		if !n.found() {
			names = append(names, n.pkg)
		}
	}
	return names
}

// packages installs what is missing.
func (j *job) packages(ctx context.Context) error {
	start := time.Now()
	list := needs()
	lacking, broken := missing(list), brokenPackages(ctx)
	if len(lacking) == 0 && len(broken) == 0 {
		j.had(start, "incus %s and its tools installed", incusVersion(ctx))
		return nil
	}
	h, err := readHost()
	if err != nil {
		return err
	}
	suite, err := h.suite()
	if err != nil {
		return fmt.Errorf("missing here: %s; %w", strings.Join(lacking, ", "), err)
	}
	if find("apt-get") == "" {
		return fmt.Errorf("missing here: %s, and there is no apt-get to install them: %s", strings.Join(lacking, ", "), byHand)
	}
	// An apt that a killed set-up left behind is still at its work: what is missing now may be there in a moment.
	if err := waitForDpkg(ctx); err != nil {
		return err
	}
	if err := mendDpkg(ctx); err != nil {
		return err
	}
	if lacking = missing(list); len(lacking) == 0 {
		j.did(start, "incus %s and its tools installed, an interrupted installation finished", incusVersion(ctx))
		return nil
	}
	added, err := j.install(ctx, h, suite, list)
	if err != nil {
		if added {
			// A source that can't be read would break every apt-get update on this machine.
			_ = os.Remove(backportsFile)
		}
		return err
	}
	if still := missing(list); len(still) > 0 {
		return fmt.Errorf("apt-get succeeded, yet the programs of %s are not there: see %s", strings.Join(still, ", "), logFile)
	}
	j.did(start, "incus %s installed, with %s", incusVersion(ctx), strings.Join(lacking, ", "))
	return nil
}

// install adds a source where one is wanted and runs apt-get; added tells whether the source is new.
func (j *job) install(ctx context.Context, h host, suite string, list []need) (added bool, err error) {
	if suite != "" {
		if added, err = addSuite(suite, h.codename); err != nil {
			return added, err
		}
	}
	// One third-party source that is down fails the update, and need not matter: the installation tells.
	updateErr := apt(ctx, "update")
	fromMain := missing(slices.DeleteFunc(slices.Clone(list), func(n need) bool { return n.incus }))
	fromSuite := missing(slices.DeleteFunc(slices.Clone(list), func(n need) bool { return !n.incus }))
	options := []string{"install", "-y", "--no-install-recommends"}
	if len(fromMain) > 0 {
		err = apt(ctx, append(slices.Clone(options), fromMain...)...)
	}
	if err == nil && len(fromSuite) > 0 {
		if suite != "" {
			options = append(options, "-t", suite)
		}
		err = apt(ctx, append(options, fromSuite...)...)
	}
	if err != nil {
		hint := ""
		if h.id == "ubuntu" {
			hint = " (on Ubuntu these packages are in universe: add-apt-repository universe)"
		}
		return added, errors.Join(fmt.Errorf("install the packages of Incus%s: %w", hint, err), updateErr)
	}
	return added, nil
}

// addSuite writes a source for suite from the mirror that the release itself comes from, unless there is one already.
func addSuite(suite, codename string) (added bool, err error) {
	sources, err := readSources("/")
	if err != nil || has(sources, suite) {
		return false, err
	}
	s, err := mainSource(sources, codename)
	if err != nil {
		return false, err
	}
	s.suites, s.components = []string{suite}, []string{"main"}
	return true, os.WriteFile(backportsFile, []byte(deb822([]source{s})), 0o644)
}

// brokenPackages returns those of our packages that dpkg began to install and did not finish.
func brokenPackages(ctx context.Context) (names []string) {
	query := find("dpkg-query")
	if query == "" {
		return nil
	}
	args := []string{"-W", "-f", "${Package} ${db:Status-Status}\n"}
	for _, n := range needs() {
		args = append(args, n.pkg)
	}
	// It fails when it doesn't know one of them, and prints the rest all the same.
	out, _ := exec.CommandContext(ctx, query, args...).Output()
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 2 && slices.Contains([]string{"half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}, f[1]) {
			names = append(names, f[0])
		}
	}
	return names
}

// mendDpkg finishes what a killed dpkg left: apt-get refuses to work before that.
func mendDpkg(ctx context.Context) error {
	journal, _ := filepath.Glob("/var/lib/dpkg/updates/*")
	if len(journal) == 0 && len(brokenPackages(ctx)) == 0 {
		return nil
	}
	if err := run(ctx, "dpkg", "--configure", "-a", "--force-confold"); err != nil {
		// What isn't fully unpacked can't be configured; the next step fetches it again.
		if fixErr := apt(ctx, "install", "-f", "-y"); fixErr != nil {
			return fmt.Errorf("finish an interrupted installation: %w", errors.Join(err, fixErr))
		}
	}
	broken := brokenPackages(ctx)
	if len(broken) == 0 {
		return nil
	}
	if err := apt(ctx, append([]string{"install", "-y", "--reinstall"}, broken...)...); err != nil {
		return fmt.Errorf("install %s again, which an interrupted installation broke: %w", strings.Join(broken, ", "), err)
	}
	return nil
}

// waitForDpkg waits until nobody holds dpkg's lock. Only apt-get can wait for it by itself.
func waitForDpkg(ctx context.Context) error {
	f, err := os.OpenFile("/var/lib/dpkg/lock-frontend", os.O_RDWR, 0)
	if err != nil {
		return nil // no dpkg has run here yet
	}
	defer f.Close()
	deadline := time.Now().Add(5 * time.Minute)
	for {
		held := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &held); err != nil || held.Type == unix.F_UNLCK {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d has been installing packages for five minutes: wait for it to end, then run set-up again", held.Pid)
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// apt runs apt-get so that it asks nothing and waits for the lock.
func apt(ctx context.Context, args ...string) error {
	return run(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold"}, args...)...)
}

// run runs a package tool with its output in logFile, and puts the end of that into the error.
func run(ctx context.Context, name string, args ...string) error {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of set-up: %w", err)
	}
	defer log.Close()
	fmt.Fprintf(log, "%s %s %s\n", time.Now().Format(time.RFC3339), name, strings.Join(args, " "))
	from, _ := log.Seek(0, 2)
	cmd := exec.CommandContext(ctx, find(name), args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l", "LC_ALL=C.UTF-8",
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin:/usr/bin:/bin") // maintainer scripts need sbin
	cmd.Stdout, cmd.Stderr = log, log
	// Out of the terminal's group, so that Ctrl-C reaches apt once and as a signal on which it ends in good order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s %s: %w; the end of %s:\n%s", name, strings.Join(args, " "), err, logFile, tail(logFile, from))
	}
	return nil
}

// tail returns the last lines of a file that were written after offset from.
func tail(path string, from int64) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if from > 0 && from <= int64(len(b)) {
		b = b[from:]
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// incusVersion asks the installed daemon for its version.
func incusVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, findIncusd(), "--version").Output()
	if err != nil {
		return "(version unknown)"
	}
	return strings.TrimSpace(string(out))
}
