package incus

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"pixels/egress"
	"pixels/sandbox"
)

// What SECURITY.md says of every sandbox, looked at from inside as root.
func TestASandboxIsConfined(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	spec := sandbox.Spec{
		Name: "confined", Owner: fmt.Sprintf("test-confine-%d", os.Getpid()), Image: b.config.Image, Egress: egress.None,
		Limits: sandbox.Limits{CPU: 1, Memory: 256 << 20, Disk: 1 << 30, Processes: 200},
	}
	made, err := b.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Destroy(context.Background(), made.ID) }) // what matters of it is below
	other := box(t, b, "other")

	for _, spec := range []sandbox.Spec{{Name: "wired", Egress: egress.Agent}, {Name: "nested", Egress: egress.None, Nesting: true}} {
		box := boxOf(t, b, spec)
		inst, _, err := b.server.with(context.Background()).GetInstance(box.ID)
		if err != nil {
			t.Fatal(err)
		}
		for name, device := range inst.ExpandedDevices {
			if device["type"] != "disk" && device["type"] != "nic" || device["type"] == "nic" && device["nictype"] != "physical" {
				t.Errorf("%s has the device %s: %v", spec.Name, name, device)
			}
		}
		config := inst.ExpandedConfig
		if config["security.privileged"] == "true" || config["security.idmap.isolated"] != "true" || config["security.guestapi"] != "false" || config["security.nesting"] != strconv.FormatBool(spec.Nesting) {
			t.Errorf("%s is made so: %v", spec.Name, config)
		}
	}
	if got := sh(t, b, made.ID, "ls /sys/class/net"); got != "lo" {
		t.Errorf("without egress it has the interfaces %q", got)
	}
	if got := sh(t, b, made.ID, "ls -d /dev/incus /dev/lxd 2>/dev/null; true"); got != "" {
		t.Errorf("Incus can be reached from inside: %s", got)
	}
	mine, theirs := sh(t, b, made.ID, "cat /proc/self/uid_map"), sh(t, b, other.ID, "cat /proc/self/uid_map")
	if f := strings.Fields(mine); len(f) != 3 || f[0] != "0" || f[1] == "0" || mine == theirs {
		t.Errorf("the maps of user ids are %q and %q", mine, theirs)
	}
	soon(t, "it sees one core and 256 MiB", func() bool { // Incus deals out the cores some time after the start
		return sh(t, b, made.ID, "nproc; awk '/MemTotal/ {print $2}' /proc/meminfo") == "1\n262144"
	})
	sh(t, b, made.ID, "dash -c 'i=0; while [ $i -lt 400 ]; do sleep 5 & i=$((i + 1)); echo $i >/root/started; done' 2>/dev/null; true")
	var count string
	soon(t, "commands can be run again", func() bool {
		var out bytes.Buffer
		code, err := b.Exec(t.Context(), made.ID, sandbox.Command{Shell: "cat /root/started", User: "root", Stdout: &out})
		count = strings.TrimSpace(out.String())
		return err == nil && code == 0
	})
	if got, err := strconv.Atoi(count); err != nil || got < 100 || got >= 200 {
		t.Errorf("%d processes of 400 run where 200 are allowed (%v)", got, err)
	}
	left := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last look at the processes: %s", left)
		}
	})
	soon(t, "the processes have ended", func() bool {
		var out bytes.Buffer
		code, err := b.Exec(t.Context(), made.ID, sandbox.Command{Shell: "ls -d /proc/[0-9]* | wc -l; cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f2-4 | sort | uniq -c", User: "root", Stdout: &out})
		left = fmt.Sprintf("exit code %d, %v\n%s", code, err, &out)
		count, _, _ := strings.Cut(out.String(), "\n")
		n, _ := strconv.Atoi(count)
		return err == nil && code == 0 && n > 0 && n < 20
	})
	countAnew(t, b)
	got, err := strconv.Atoi(sh(t, b, made.ID, "head -c 1200M /dev/zero >/root/big 2>/dev/null; sync; stat -c %s /root/big"))
	if err != nil || got >= 1<<30 {
		t.Errorf("a file of %d bytes fits into 1 GiB (%v)", got, err)
	}
	// Incus can't even note something on it now.
	if err := b.Destroy(t.Context(), made.ID); err != nil {
		t.Errorf("with a full disk it can't be destroyed: %v", err)
	}
	b.background.Wait()
	if _, _, err := b.server.with(context.Background()).GetInstance(made.ID); !missing(err) {
		t.Errorf("destroyed with a full disk it is still there: %v", err)
	}
}

// countAnew does what set-up does where the kernel gave up the accounts of a btrfs, as it may where it knows no simple
// quotas: no disk limit holds then, which SECURITY.md says. Simple quotas need no counting, and refuse it.
func countAnew(t *testing.T, b *Backend) {
	t.Helper()
	pool, _, err := b.server.with(context.Background()).GetStoragePool(b.config.Pool)
	if err != nil {
		t.Fatal(err)
	}
	if pool.Driver != "btrfs" || os.Geteuid() != 0 {
		return
	}
	out, err := exec.CommandContext(t.Context(), "btrfs", "quota", "rescan", "-w", "/var/lib/incus/storage-pools/"+b.config.Pool).CombinedOutput()
	if err != nil {
		t.Logf("count anew: %v: %s", err, out)
	}
}
