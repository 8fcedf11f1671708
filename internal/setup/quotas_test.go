package setup

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestSimpleQuotas does on a file system of its own what set-up does on the pool.
func TestSimpleQuotas(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	file, mount := filepath.Join(dir, "file"), filepath.Join(dir, "mount")
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
		return string(out)
	}
	if _, err := exec.LookPath("mkfs.btrfs"); err != nil {
		t.Skip("no btrfs here")
	}
	run("truncate", "-s", "200M", file)
	run("mkfs.btrfs", "-q", file)
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop", file, mount).CombinedOutput(); err != nil {
		t.Skipf("no loop mounts here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("%s", out)
		}
	})
	if err := quotaCall(mount, quotaControl, enableSimple, 0); err != nil {
		t.Skipf("the kernel has no simple quotas: %v", err)
	}
	base, clone := filepath.Join(mount, "base"), filepath.Join(mount, "clone")
	run("btrfs", "subvolume", "create", base)
	if err := os.WriteFile(filepath.Join(base, "file"), make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run("btrfs", "subvolume", "snapshot", base, clone)
	run("btrfs", "qgroup", "limit", "10M", clone)
	if err := os.WriteFile(filepath.Join(clone, "little"), make([]byte, 5<<20), 0o600); err != nil {
		t.Errorf("what came with the clone counts: %v", err)
	}
	f, err := os.Create(filepath.Join(clone, "much"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(make([]byte, 8<<20))
	if err == nil {
		err = f.Sync()
	}
	f.Close()
	if err == nil {
		t.Error("the limit does not hold")
	}
	if _, err := exec.Command("btrfs", "qgroup", "show", mount).CombinedOutput(); err != nil {
		t.Errorf("Incus can't read the accounts: %v", err)
	}

	run("btrfs", "subvolume", "delete", "-c", clone)
	run("btrfs", "subvolume", "sync", mount)
	run("btrfs", "filesystem", "sync", mount)
	for _, id := range staleQuotas(run("btrfs", "qgroup", "show", "--raw", mount)) {
		if err := quotaCall(mount, quotaGroup, 0, id); err != nil {
			t.Errorf("the account of the deleted clone stays: %v", err)
		}
	}
	shown := run("btrfs", "qgroup", "show", mount)
	if strings.Contains(shown, "<stale>") || !strings.Contains(shown, "base") {
		t.Errorf("not just the stale accounts were removed:\n%s", shown)
	}
}

func TestStaleQuotas(t *testing.T) {
	got := staleQuotas(`Qgroupid    Referenced    Exclusive   Path
--------    ----------    ---------   ----
0/5              16384        16384   <toplevel>
0/256         42074112     42074112   <stale>
0/257                0            0   <stale>
0/258                0            0   base
1/259                0            0   <stale>
`)
	if want := []uint64{257}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
