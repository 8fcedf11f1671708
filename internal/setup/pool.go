package setup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pixels/incus"
)

// drivers in the order of preference. btrfs comes first because it restores any snapshot and keeps the newer ones: ZFS
// can only roll back by destroying them. dir copies every file at every clone.
var drivers = []string{"btrfs", "zfs", "dir"}

const dirIsSlow = "checkpoints and clones copy every file; give the kernel btrfs or ZFS, remove the pool (make clean-incus), and run `pixels-mcp setup` again"

// checkPool vets the two options about the pool before anything is done.
func checkPool(size, driver string) error {
	if driver != "" && driver != "auto" && !slices.Contains(drivers, driver) {
		return fmt.Errorf("pool driver %q: use auto, %s", driver, strings.Join(drivers, ", "))
	}
	if size == "" {
		return nil
	}
	bytes, err := parseSize(size)
	if err != nil {
		return err
	}
	if bytes < 1<<30 {
		return fmt.Errorf("pool size %q: at least 1GiB is needed for the base image and room to work", size)
	}
	return nil
}

// pool makes the storage pool unless there is one.
func (j *job) pool(_ context.Context, p *incus.Provisioner) error {
	start := time.Now()
	have, err := p.Pool()
	if err != nil {
		return err
	}
	if have != nil && have.Managed && have.Broken {
		// A set-up killed in the middle leaves a pool that can only be removed.
		if err := p.DeletePool(); err != nil {
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
	server, err := p.Server()
	if err != nil {
		return err
	}
	if server.Clustered {
		return fmt.Errorf("this Incus is a cluster, where a pool is defined on each member: create the pool %q yourself (incus storage create --target ...), then run set-up again", p.Config().Pool)
	}
	size := j.PoolSize
	if size == "" {
		size = j.defaultSize()
	}
	var failures []error
	for _, driver := range j.candidates(server) {
		if err := p.CreatePool(driver, size); err != nil {
			failures = append(failures, err)
			_ = p.DeletePool() // an attempt that failed half-way; the next one needs its name
			continue
		}
		if driver == "dir" {
			j.did(start, "storage pool %s (dir)", p.Config().Pool)
			j.warn(dirIsSlow, "its driver is dir, because neither btrfs nor ZFS works here: clones are slow")
			return nil
		}
		j.did(start, "storage pool %s (%s, loop file of up to %s)", p.Config().Pool, driver, size)
		return nil
	}
	return errors.Join(append(failures, errors.New("no storage driver worked: see `pixels-mcp doctor`, or create the pool yourself and name it in the configuration"))...)
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

// defaultSize is 20 GiB, or half of what is free where the loop file will lie if that is less. The file is sparse, but
// a pool that outgrows its disk loses writes.
func (j *job) defaultSize() string {
	size := uint64(defaultPoolSize)
	var st unix.Statfs_t
	if j.local() && unix.Statfs(filepath.Dir(incus.DefaultSocket), &st) == nil {
		size = min(size, st.Bavail*uint64(st.Bsize)/2)
	}
	if size >= 1<<30 {
		return fmt.Sprintf("%dGiB", size>>30)
	}
	return fmt.Sprintf("%dMiB", max(size>>20, 512))
}

var sizePattern = regexp.MustCompile(`^([0-9]+)(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$`)

// parseSize reads a size as Incus writes it.
func parseSize(text string) (uint64, error) {
	m := sizePattern.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("size %q: write a whole number and a unit, as 20GiB", text)
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	units := map[string]uint64{"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
	if err != nil || n > 1<<62/units[m[2]] {
		return 0, fmt.Errorf("size %q is too large", text)
	}
	return n * units[m[2]], nil
}
