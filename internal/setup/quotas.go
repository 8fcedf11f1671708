package setup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"pixels/incus"
)

// On btrfs the disk limit of a sandbox is a quota. Simple quotas (kernel 6.7 and newer) charge what a sandbox writes to it,
// and stay right. The others count for each sandbox what it can see, and the kernel stops to enforce all of them, without a
// word, once it takes its accounts for inconsistent: when a large subvolume is deleted, from a tree of
// drop_subtree_threshold levels on (btrfs(5), "qgroups"), and when snapshots come and go, for an account falls below zero
// then (measured on 6.18: within a minute of eight at once). neverDrop is more levels than a tree can have.
const neverDrop = 8

// quotaState is what the kernel tells of a pool's quotas.
type quotaState struct {
	dir          string // in /sys; it is there once quotas are on
	managed      bool   // set-up made the pool
	simple       bool
	inconsistent bool
	threshold    int
}

// quotaState reads it, for a pool on this machine. ok is false where there is nothing to read.
func (j *job) quotaState(ctx context.Context, p *incus.Provisioner) (q quotaState, ok bool) {
	pool, err := p.Pool(ctx)
	if err != nil || pool == nil || pool.Driver != "btrfs" || !j.local() {
		return q, false
	}
	id, err := btrfsID(pool.Source)
	if err != nil {
		return q, false
	}
	q.managed = pool.Managed
	q.dir = filepath.Join("/sys/fs/btrfs", id, "qgroups")
	number := func(name string) int {
		b, err := os.ReadFile(filepath.Join(q.dir, name))
		if err != nil {
			return -1
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return -1
		}
		return n
	}
	mode, _ := os.ReadFile(filepath.Join(q.dir, "mode")) // older kernels have but one
	q.simple = strings.TrimSpace(string(mode)) == "squota"
	q.inconsistent, q.threshold = number("inconsistent") == 1, number("drop_subtree_threshold")
	return q, true
}

// btrfsID reads a file system's id from the first super block of the file or device that holds it.
func btrfsID(source string) (string, error) {
	f, err := os.Open(source)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b [16]byte
	if _, err := f.ReadAt(b[:], 0x10000+0x20); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// quotas turns on the quotas of the pool, and mends them where the kernel had stopped to keep them. It tells only of what it
// did.
func (j *job) quotas(ctx context.Context, p *incus.Provisioner) error {
	start := time.Now()
	q, ok := j.quotaState(ctx, p)
	if !ok || !j.root {
		return nil
	}
	mount := filepath.Join("/var/lib/incus/storage-pools", p.Config().Pool)
	btrfs := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "btrfs", append(args, mount)...).CombinedOutput()
		if err != nil && ctx.Err() == nil {
			j.warn("btrfs "+strings.Join(args, " ")+" by hand", "disk limits may not be enforced: %s", strings.TrimSpace(string(out)))
		}
		return string(out), ctx.Err()
	}
	if !exists(q.dir) {
		// Now, for Incus does it with the first limit, too late for what lies there already.
		if q.managed && quotaCall(mount, quotaControl, enableSimple, 0) == nil {
			j.did(start, "disk quotas of the pool are on")
			_, err := p.NoteCharges(ctx, true)
			return err
		}
		if _, err := btrfs("quota", "enable"); err != nil {
			return err
		}
		q, _ = j.quotaState(ctx, p)
	}
	if q, ok = j.quotaState(ctx, p); ok {
		if _, err := p.NoteCharges(ctx, q.simple); err != nil {
			return err
		}
	}
	if q.simple {
		// Incus asks to remove an account before its subvolume, which newer kernels refuse, and reads all for each call.
		out, err := btrfs("qgroup", "show", "--raw")
		for _, id := range staleQuotas(out) {
			_ = quotaCall(mount, quotaGroup, 0, id) // what is in use again stays
		}
		return err
	}
	if !q.inconsistent && (q.threshold < 0 || q.threshold >= neverDrop) {
		return nil
	}
	if q.threshold >= 0 && q.threshold < neverDrop {
		if err := os.WriteFile(filepath.Join(q.dir, "drop_subtree_threshold"), []byte(strconv.Itoa(neverDrop)), 0); err != nil {
			j.warn("none", "the kernel may stop to enforce disk limits: %v", err)
		}
	}
	if q.inconsistent {
		if _, err := btrfs("quota", "rescan", "-w"); err != nil {
			return err
		}
	}
	j.did(start, "disk quotas of the pool kept and right")
	return nil
}

// staleQuotas lists the accounts, out of what `btrfs qgroup show --raw` printed, whose subvolume is gone with all it wrote.
func staleQuotas(shown string) (ids []uint64) {
	for line := range strings.Lines(shown) {
		f := strings.Fields(line)
		if len(f) != 4 || f[1] != "0" || f[2] != "0" || f[3] != "<stale>" {
			continue
		}
		if id, ok := strings.CutPrefix(f[0], "0/"); ok {
			if n, err := strconv.ParseUint(id, 10, 48); err == nil {
				ids = append(ids, n)
			}
		}
	}
	return ids
}

// Calls of the kernel (linux/btrfs.h). Debian 12's btrfs(8) knows no simple quotas.
const (
	quotaControl = 0xc0109428 // BTRFS_IOC_QUOTA_CTL: what to do, and what came of it
	quotaGroup   = 0x4010942a // BTRFS_IOC_QGROUP_CREATE: 1 to create or 0 to remove, and which
	enableSimple = 4          // BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
)

// quotaCall makes one on the file system that is mounted there. Kernels before 6.7 know no simple quotas, and fail;
// later ones note in the file system that those can't mount it.
func quotaCall(mount string, call uint, args ...uint64) error {
	dir, err := os.Open(mount)
	if err != nil {
		return err
	}
	defer dir.Close()
	argument := [2]uint64(args)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), uintptr(call), uintptr(unsafe.Pointer(&argument))); errno != 0 {
		return errno
	}
	return nil
}

func (j *job) checkQuotas(ctx context.Context, p *incus.Provisioner) {
	q, ok := j.quotaState(ctx, p)
	switch {
	case !ok:
	case !exists(q.dir):
		j.warn(setUp+" as root", "pool: its quotas are off until the first sandbox with a disk limit")
	case q.inconsistent:
		j.fail(setUp+" as root, which counts anew", "pool: the kernel has stopped to enforce disk limits")
	case !q.simple && q.threshold >= 0 && q.threshold < neverDrop:
		j.warn(setUp+" as root, also after a reboot", "pool: the kernel may stop to enforce disk limits when a large sandbox is destroyed")
	default:
		j.good("pool: disk limits are enforced")
	}
}
