package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// buildDir holds the root while it is built. All in it is ours, and goes before and after a build.
const buildDir = "/var/lib/pixels/build"

// bootstrap builds the root of an image from the distribution's packages and packs it into the squashfs file out.
func bootstrap(ctx context.Context, r recipe, out string) (err error) {
	if err := clearBuild(buildDir); err != nil {
		return err
	}
	// Open to all: apt fetches as a user of its own, inside the new root.
	if err := os.MkdirAll(buildDir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clearBuild(buildDir)) }()
	root := filepath.Join(buildDir, "root")
	if find("mmdebstrap") != "" {
		err = withMmdebstrap(ctx, r, root)
	} else {
		err = withDebootstrap(ctx, r, root)
	}
	if err != nil {
		return err
	}
	if err := carryOver(r, root); err != nil {
		return err
	}
	script := filepath.Join(root, "pixels-customize.sh")
	if err := os.WriteFile(script, r.script, 0o755); err != nil {
		return err
	}
	if err := contained(ctx, "chroot", root, "/bin/sh", "/pixels-customize.sh", r.kind); err != nil {
		return err
	}
	if err := os.Remove(script); err != nil {
		return err
	}
	return pack(ctx, root, out, r.kind)
}

// withMmdebstrap makes a minimal root with our packages in one go.
func withMmdebstrap(ctx context.Context, r recipe, root string) error {
	sources := filepath.Join(buildDir, "build.sources")
	if err := os.WriteFile(sources, []byte(deb822(r.sources)), 0o600); err != nil {
		return err
	}
	args := []string{"--mode=root", "--variant=minbase", "--include=" + strings.Join(r.packages, ",")}
	for line := range strings.Lines(r.aptConf) {
		args = append(args, "--aptopt="+strings.TrimSpace(line))
	}
	return contained(ctx, "mmdebstrap", append(args, r.codename, root, sources)...)
}

// withDebootstrap makes the root with the older tool, which knows one mirror and one suite: the rest comes by apt inside.
func withDebootstrap(ctx context.Context, r recipe, root string) error {
	s, err := mainSource(r.sources, r.codename)
	if err != nil {
		return err
	}
	args := []string{"--variant=minbase", "--components=" + strings.Join(s.components, ","), "--include=ca-certificates"}
	switch {
	case s.trusted:
		args = append(args, "--no-check-gpg")
	case strings.HasPrefix(s.signedBy, "/"):
		args = append(args, "--keyring="+s.signedBy)
	}
	if err := contained(ctx, "debootstrap", append(args, r.codename, root, s.uris[0])...); err != nil {
		return err
	}
	if err := carryOver(r, root); err != nil {
		return err
	}
	// The build's own view of the mirror, passwords included, for the time of the build; carryOver puts the image's back.
	if err := writeFile(root, sourcesPath, []byte(deb822(r.sources))); err != nil {
		return err
	}
	if err := writeFile(root, aptConfPath, []byte(r.aptConf)); err != nil {
		return err
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	if err := writeFile(root, "/etc/resolv.conf", resolv); err != nil {
		return err
	}
	// No daemon may start in a root that is only being built.
	if err := writeFile(root, "/usr/sbin/policy-rc.d", []byte("#!/bin/sh\nexit 101\n")); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(root, "usr/sbin/policy-rc.d"), 0o755); err != nil {
		return err
	}
	args = append([]string{"-ec", `root=$1; shift
mount -t proc proc "$root/proc"
chroot "$root" apt-get -q update
chroot "$root" apt-get -q install -y --no-install-recommends "$@"
rm -f "$root/usr/sbin/policy-rc.d" "$root` + aptConfPath + `"`, "sh", root}, r.packages...)
	return contained(ctx, "sh", args...)
}

// carryOver writes the recipe's files into the root, and the keys that its sources are signed with.
func carryOver(r recipe, root string) error {
	// What the tools wrote there may hold the build's passwords, and would list every mirror twice.
	for _, path := range []string{"/etc/apt/sources.list", "/etc/apt/apt.conf.d/99mmdebstrap"} {
		if err := os.Remove(filepath.Join(root, path)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	lists, err := filepath.Glob(filepath.Join(root, "/etc/apt/sources.list.d/*"))
	if err != nil {
		return err
	}
	for _, path := range lists {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for path, content := range r.files {
		if err := writeFile(root, path, content); err != nil {
			return err
		}
	}
	for _, s := range r.sources {
		if !strings.HasPrefix(s.signedBy, "/") || exists(filepath.Join(root, s.signedBy)) {
			continue
		}
		key, err := os.ReadFile(s.signedBy)
		if err != nil {
			return fmt.Errorf("read the key of %s: %w", s.uris[0], err)
		}
		if err := writeFile(root, s.signedBy, key); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file into a root, with the folders above it, and never through a link in its place.
func writeFile(root, path string, content []byte) error {
	full := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	if err := os.Remove(full); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(full, content, 0o644)
}

// pack squashes root into out, which appears whole or not at all, and drops what older recipes of the kind left beside it.
func pack(ctx context.Context, root, out, kind string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	part := out + ".part"
	// Level 3 packs in a second and unpacks faster than the smaller levels.
	if err := contained(ctx, "mksquashfs", root, part, "-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-no-progress", "-quiet"); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	old, err := filepath.Glob(filepath.Join(filepath.Dir(out), kind+"-[0-9a-f]*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if path != part {
			_ = os.Remove(path) // only room is lost
		}
	}
	return os.Rename(part, out)
}

// contained runs a build tool in mount and process namespaces of its own. When set-up is killed the kernel ends all
// that the tool started and takes its mounts away, so that nothing goes on building, or stays mounted, behind the next run.
func contained(ctx context.Context, name string, args ...string) error {
	path := find(name)
	if path == "" {
		return fmt.Errorf("%s is not installed", name)
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of set-up: %w", err)
	}
	defer log.Close()
	fmt.Fprintf(log, "%s build: %s\n", time.Now().Format(time.RFC3339), name)
	from, _ := log.Seek(0, 2)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	// A TMPDIR of the host's need not exist inside the new root.
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "TMPDIR=") })
	cmd.Env = append(env, "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID,
		// Unshared and not cloned: only then does the runtime make the mounts private, so that none shows on the host.
		Unshareflags: syscall.CLONE_NEWNS,
		Pdeathsig:    syscall.SIGKILL,
	}
	// The death signal is that of the thread that started the child, not of the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s: %w; the end of %s:\n%s", name, err, logFile, tail(logFile, from))
	}
	return nil
}

// clearBuild removes a build folder. Mounts that were left inside are taken away first, and nothing is removed while
// one stays: what is mounted there may be the host's own.
func clearBuild(dir string) error {
	for _, mount := range mountsUnder(dir) {
		if err := unix.Unmount(mount, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s, left by an interrupted build: %w", mount, err)
		}
	}
	if left := mountsUnder(dir); len(left) > 0 {
		return fmt.Errorf("%s is still mounted: unmount it, then run set-up again", left[0])
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the build folder: %w", err)
	}
	return nil
}

// mountsUnder returns the mount points at and below dir, the innermost first.
func mountsUnder(dir string) []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return parseMounts(string(b), dir)
}

func parseMounts(mountinfo, dir string) []string {
	var out []string
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		// The kernel writes blanks and backslashes as octal escapes, which Go reads too.
		point, err := strconv.Unquote(`"` + strings.ReplaceAll(f[4], `"`, `\"`) + `"`)
		if err != nil {
			point = f[4]
		}
		if point == dir || strings.HasPrefix(point, dir+"/") {
			out = append(out, point)
		}
	}
	// Later mounts lie on or below earlier ones.
	slices.Reverse(out)
	return out
}
