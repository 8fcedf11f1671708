package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mounts mounts what a Linux system has in memory. The container brings /proc, /sys and /dev along.
func mounts() error {
	var problems []error
	for _, m := range []struct {
		source, target, kind, options string
		flags                         uintptr
		optional                      bool
	}{
		{"tmpfs", "/run", "tmpfs", "mode=755,size=20%,nr_inodes=800k", unix.MS_NOSUID | unix.MS_NODEV, false},
		{"tmpfs", "/run/lock", "tmpfs", "mode=1777,size=5m", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, false},
		{"tmpfs", "/dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV, false},
		{"mqueue", "/dev/mqueue", "mqueue", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, true},
		// Programs read their limits there. A host with the older hierarchy doesn't offer it.
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, true},
	} {
		if mounted(m.target) {
			continue
		}
		if err := os.MkdirAll(m.target, 0o755); err != nil && !m.optional {
			problems = append(problems, err)
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil && !m.optional {
			problems = append(problems, fmt.Errorf("mount %s: %w", m.target, err))
		}
	}
	// What packages expect below /run; systemd-tmpfiles makes it where systemd runs.
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{"/run/sshd", 0o755}, {"/run/sudo", 0o711}, {"/run/user", 0o755}, {"/run/screen", os.ModeSticky | 0o777}} {
		if err := os.MkdirAll(d.path, d.mode); err == nil {
			_ = os.Chmod(d.path, d.mode)
		}
	}
	return errors.Join(problems...)
}

// mounted tells whether a folder is a mount point.
func mounted(path string) bool {
	b, err := os.ReadFile("/proc/self/mounts")
	return err == nil && bytes.Contains(b, []byte(" "+path+" "))
}

// hostName gives the sandbox the name in /etc/hostname, which its host wrote there; libnss-myhostname resolves it.
func hostName() error {
	b, err := os.ReadFile("/etc/hostname")
	if err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	name := bytes.TrimSpace(b)
	if len(name) == 0 {
		return errors.New("set the host name: /etc/hostname is empty")
	}
	if err := unix.Sethostname(name); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	return nil
}
