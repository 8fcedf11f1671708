// Package setup brings a machine to where sandboxes can run on it: Incus installed and running, a storage pool, a
// bridge, a base image of our own and the gateway. It can be run again at any time, says what it did and what was there already, and
// touches no pool, network, image or profile that it did not make. It knows neither sandboxes nor policy.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"pixels/incus"
	"pixels/internal/program"
)

// defaultPoolSize is the most that the pool's loop file takes unless the options say otherwise, in bytes.
const defaultPoolSize = 20 << 30

// Options say what to set up and where.
type Options struct {
	Out        io.Writer    // a line a step; nil drops them
	Incus      incus.Config // which Incus, and the names of pool, network and image
	PoolSize   int64        // bytes of the pool's loop file; 0 means 20GiB or half of the free disk, whichever is less
	Program    string       // path of this program, to link its short name beside it; empty links nothing
	Systemd    bool         // make the image with systemd too, beside the base image
	PoolDriver string       // btrfs, zfs or dir; empty or "auto" picks the best one that works
}

// job is one run of set-up.
type job struct {
	Options
	report
	root bool // may install and start things on this machine
}

// newJob fills in what the options leave open.
func newJob(o Options) *job {
	if o.Out == nil {
		o.Out = io.Discard
	}
	return &job{Options: o, report: report{out: o.Out}, root: os.Geteuid() == 0}
}

// local tells whether the configured Incus is on this machine.
func (j *job) local() bool { return j.Options.Incus.Remote == "" }

// Run sets everything up. It returns the first step that failed; all that was done before stays and is found done the
// next time. Runs on one machine take turns.
func Run(ctx context.Context, o Options) error {
	j := newJob(o)
	if err := checkPool(o.PoolSize, o.PoolDriver); err != nil {
		return err
	}
	unlock, err := j.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if j.local() {
		if err := j.prepareHost(ctx); err != nil {
			return err
		}
	}
	p, err := incus.OpenProvisioner(ctx, o.Incus)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context, *incus.Provisioner) error{j.pool, j.quotas, j.network, j.hostRules, j.images, j.gateway, j.canary, j.shortName} {
		if err := step(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// prepareHost installs and starts Incus, or says what root would do.
func (j *job) prepareHost(ctx context.Context) error {
	if !j.root {
		j.note("not root: nothing is installed or started; root would install what is missing and start Incus (sudo %s setup)", program.Name)
		return nil
	}
	if err := j.packages(ctx); err != nil {
		return err
	}
	j.limits()
	return j.daemons(ctx)
}

// lock makes runs on one machine take turns. The kernel lets go of it when the process ends, however it ends.
func (j *job) lock(ctx context.Context) (unlock func(), err error) {
	path := "/run/pixels-setup.lock"
	if !j.root {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			dir = os.TempDir()
		}
		path = filepath.Join(dir, fmt.Sprintf("pixels-setup-%d.lock", os.Getuid()))
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of set-up: %w", err)
	}
	told := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told {
			j.note("another set-up is at work; waiting for it")
			told = true
		}
		// flock has no way to wait with a deadline.
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("wait for another set-up to end: %w", err)
		}
	}
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Clean removes every sandbox of the configured project and, when all is set, our images, network and pool as well.
// Only what carries a user.pixels key is touched. What was removed is printed.
func Clean(ctx context.Context, o Options, all bool) error {
	j := newJob(o)
	p, err := incus.OpenProvisioner(ctx, o.Incus)
	if err != nil {
		return err
	}
	count := 0
	rules, ruled, _ := incus.HostRulesOf(ctx, p)
	err = p.RemoveAll(ctx, all, func(what string) {
		count++
		fmt.Fprintf(j.out, "  removed %s\n", what)
	})
	if all && ruled && err == nil && j.local() {
		gone, e := rules.Remove(ctx)
		if err = e; gone {
			count++
			fmt.Fprintf(j.out, "  removed this machine's firewall rules for %s\n", rules.Bridge)
		}
	}
	if count == 0 && err == nil {
		fmt.Fprintln(j.out, "  nothing of ours was there")
	}
	return err
}
