package incus

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"pixels/egress"
	"pixels/sandbox"
)

// holds is what a sandbox has of the pool with all its checkpoints, in bytes, as btrfs counts it.
func holdsOf(t *testing.T, b *Backend, lineage string) (bytes int64) {
	t.Helper()
	out, err := exec.Command("btrfs", "qgroup", "show", "--raw", "/var/lib/incus/storage-pools/"+b.config.Pool).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all, err := b.cache.fresh()
	if err != nil {
		t.Fatal(err)
	}
	prefix := ""
	if b.config.Project != "default" {
		prefix = b.config.Project + "_"
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		for id, k := range all {
			if first(k.Instance) == lineage && (strings.HasSuffix(f[3], "/"+prefix+id) || strings.Contains(f[3], "/"+prefix+id+"/")) {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				bytes += n
			}
		}
	}
	return bytes
}

// A sandbox holds no more of the pool than its disk, however often it is filled, kept and restored.
func TestASandboxHoldsNoMoreThanItsDisk(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	if !b.charges() {
		t.Skip("the pool charges no instance for its snapshots")
	}
	const disk = 1 << 30
	made := boxOf(t, b, sandbox.Spec{Name: "full", Egress: egress.None, Limits: sandbox.Limits{Disk: disk}})
	id := made.ID
	fill := func(n int) {
		t.Helper()
		// What doesn't compress, over what was there: old content lives on in the checkpoints alone.
		sh(t, b, id, fmt.Sprintf("head -c 200M /dev/urandom >/root/fill 2>/dev/null; head -c 100M /dev/urandom >/root/garbage 2>/dev/null; rm -f /root/garbage; sync; echo %d", n))
	}
	refused := 0
	for n := range 5 {
		fill(n)
		label := fmt.Sprintf("c%d", n)
		if _, err := b.CreateCheckpoint(t.Context(), id, label, ""); err != nil {
			t.Fatal(err)
		}
		b.background.Wait()
		sh(t, b, id, "head -c 150M /dev/urandom >/root/after 2>/dev/null; sync; true") // which no checkpoint has
		now, err := b.Restore(t.Context(), id, label)
		if errors.Is(err, sandbox.ErrState) && strings.Contains(err.Error(), "delete_checkpoint") {
			refused++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b.background.Wait()
		id = now.ID
		if now.Limits.Disk != disk {
			t.Errorf("after a restore its disk is said to be %d", now.Limits.Disk)
		}
		if held := holdsOf(t, b, made.ID); held > disk {
			t.Errorf("after %d restores it holds %d of %d bytes", n+1, held, disk)
		}
	}
	if refused == 0 {
		t.Error("five full checkpoints left room for all restores")
	}
	sh(t, b, id, "cat /dev/urandom >/root/rest 2>/dev/null; sync; true")
	time.Sleep(time.Second)
	if held := holdsOf(t, b, made.ID); held > disk+disk/50 {
		t.Errorf("full, it holds %d of %d bytes", held, disk)
	}
	// What is deleted is free again.
	for n := range 5 {
		if err := b.DeleteCheckpoint(t.Context(), id, fmt.Sprintf("c%d", n)); err != nil {
			t.Error(err)
		}
	}
	b.background.Wait()
	inst, _, err := b.server.GetInstance(id)
	if err != nil {
		t.Fatal(err)
	}
	if size := inst.Devices["root"]["size"]; size != strconv.Itoa(disk) {
		t.Errorf("without checkpoints its instance has %s", size)
	}
	if err := b.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	b.background.Wait()
}
