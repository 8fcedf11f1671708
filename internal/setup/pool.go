package setup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pixels/incus"
	"pixels/internal/program"
	"pixels/internal/units"
)

// drivers in the order of preference. btrfs comes first because it restores any snapshot and keeps the newer ones: ZFS
// can only roll back by destroying them. dir copies every file at every clone.
var drivers = []string{"btrfs", "zfs", "dir"}

var dirIsSlow = "checkpoints and clones copy every file; give the kernel btrfs or ZFS, remove the pool (make clean-incus), and run `" + program.Name + " setup` again"

// checkPool vets the two options about the pool before anything is done.
func checkPool(size int64, driver string) error {
	if driver != "" && driver != "auto" && !slices.Contains(drivers, driver) {
		return fmt.Errorf("pool driver %q: use auto, %s", driver, strings.Join(drivers, ", "))
	}
	if size != 0 && size < 1<<30 {
		return fmt.Errorf("pool size %s: at least 1GiB is needed for the base image and room to work", units.Size(size))
	}
	return nil
}

// pool makes the storage pool unless there is one.
func (j *job) pool(ctx context.Context, p *incus.Provisioner) error {
	start := time.Now()
	have, err := p.Pool(ctx)
	if err != nil {
		return err
	}
	if have != nil && have.Managed && have.Broken {
		// A set-up killed in the middle leaves a pool that can only be removed.
		if err := p.DeletePool(ctx); err != nil {
			return fmt.Errorf("remove the pool that an interrupted set-up left: %w", err)
		}
		have = nil
	}
	if have != nil {
		whose := ""
		if !have.Managed {
			whose = ", not made by pixels and used as it is"
		}
		j.had(start, "storage pool %s (%s%s)", have.Name, have.Driver, whose)
		if have.Driver == "dir" {
			j.warn(dirIsSlow, "its driver is dir: clones are slow")
		}
		return nil
	}
	server, err := p.Server(ctx)
	if err != nil {
		return err
	}
	if server.Clustered {
		return fmt.Errorf("this Incus is a cluster, where a pool is defined on each member: create the pool %q yourself (incus storage create --target ...), then run set-up again", p.Config().Pool)
	}
	size := j.PoolSize
	if size == 0 {
		size = j.defaultSize()
	}
	var failures []error
	for _, driver := range j.candidates(server) {
		if err := p.CreatePool(ctx, driver, size); err != nil {
			failures = append(failures, err)
			_ = p.DeletePool(ctx) // an attempt that failed half-way; the next one needs its name
			continue
		}
		if driver == "dir" {
			j.did(start, "storage pool %s (dir)", p.Config().Pool)
			j.warn(dirIsSlow, "its driver is dir, because neither btrfs nor ZFS works here: clones are slow")
			return nil
		}
		j.did(start, "storage pool %s (%s, loop file of up to %s)", p.Config().Pool, driver, units.Size(size))
		return nil
	}
	return errors.Join(append(failures, errors.New("no storage driver worked: see `"+program.Name+" doctor`, or create the pool yourself and name it in the configuration"))...)
}

// candidates are the drivers worth trying here, best first.
func (j *job) candidates(server incus.ProvisionServer) []string {
	if j.PoolDriver != "" && j.PoolDriver != "auto" {
		return []string{j.PoolDriver}
	}
	return slices.DeleteFunc(slices.Clone(drivers), func(driver string) bool {
		// The list of the server can be older than a module that was loaded just now, so the kernel is asked where it is ours.
		return driver != "dir" && !server.Supports(driver) && (!j.local() || !kernelHas(driver))
	})
}

// defaultSize is 20 GiB, or half of what is free where the loop file will lie if that is less, in bytes. The file is
// sparse, but a pool that outgrows its disk loses writes.
func (j *job) defaultSize() int64 {
	size := int64(defaultPoolSize)
	var st unix.Statfs_t
	if j.local() && unix.Statfs(filepath.Dir(incus.DefaultSocket), &st) == nil {
		size = min(size, int64(st.Bavail)*st.Bsize/2)
	}
	return max(size, 512<<20)
}
