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

	"pixels/incus"
)

// On btrfs the disk limit of a sandbox is a quota, and newer kernels stop to enforce all quotas of a file system, without a
// word, when a large subvolume is deleted: from a tree of drop_subtree_threshold levels on they take the accounts for
// inconsistent rather than keep them (btrfs(5), "qgroups"). neverDrop is more levels than a tree can have.
const neverDrop = 8

// quotaState is what the kernel tells of a pool's quotas.
type quotaState struct {
	dir          string // in /sys; it is there once quotas are on
	inconsistent bool
	threshold    int
}

// quotaState reads it, for a pool of set-up's own on this machine. ok is false where there is nothing to read.
func (j *job) quotaState(p *incus.Provisioner) (q quotaState, ok bool) {
	pool, err := p.Pool()
	if err != nil || pool == nil || pool.Driver != "btrfs" || !j.local() {
		return q, false
	}
	id, err := btrfsID(pool.Source)
	if err != nil {
		return q, false
	}
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

// quotas makes the kernel keep the quotas of the pool, and count anew where it had stopped. It tells only of what it did.
func (j *job) quotas(ctx context.Context, p *incus.Provisioner) error {
	start := time.Now()
	q, ok := j.quotaState(p)
	if !ok || !j.root {
		return nil
	}
	// btrfs works on where the pool is mounted.
	btrfs := func(args ...string) error {
		out, err := exec.CommandContext(ctx, "btrfs", append(args, filepath.Join("/var/lib/incus/storage-pools", p.Config().Pool))...).CombinedOutput()
		if err != nil && ctx.Err() == nil {
			j.warn("btrfs "+strings.Join(args, " ")+" by hand", "disk limits may not be enforced: %s", strings.TrimSpace(string(out)))
		}
		return ctx.Err()
	}
	if !exists(q.dir) {
		// Incus does it with the first limit, too late for what follows.
		if err := btrfs("quota", "enable"); err != nil {
			return err
		}
		q, _ = j.quotaState(p)
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
		if err := btrfs("quota", "rescan", "-w"); err != nil {
			return err
		}
	}
	j.did(start, "disk quotas of the pool kept and right")
	return nil
}

func (j *job) checkQuotas(p *incus.Provisioner) {
	q, ok := j.quotaState(p)
	switch {
	case !ok:
	case q.inconsistent:
		j.fail(setUp+" as root, which counts anew", "pool: the kernel has stopped to enforce disk limits")
	case q.threshold >= 0 && q.threshold < neverDrop:
		j.warn(setUp+" as root, also after a reboot", "pool: the kernel may stop to enforce disk limits when a large sandbox is destroyed")
	default:
		j.good("pool: disk limits are enforced")
	}
}
