package incus

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/internal/view"
	"pixels/sandbox"
)

// holds is what a sandbox has of the pool with all its checkpoints, in bytes, as btrfs counts it.
func holdsOf(t *testing.T, b *Backend, lineage string) (bytes int64) {
	t.Helper()
	out, err := exec.Command("btrfs", "qgroup", "show", "--raw", "/var/lib/incus/storage-pools/"+b.config.Pool).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all, err := b.cache.fresh(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		for id, k := range all {
			if first(k.Instance) == lineage && (strings.HasSuffix(f[3], "/"+inProject(b, id)) || strings.Contains(f[3], "/"+inProject(b, id)+"/")) {
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
	if !b.charges(context.Background()) {
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
		if errors.Is(err, sandbox.ErrState) && strings.Contains(view.Error(err, view.Agent), "delete_checkpoint") {
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
	inst, _, err := b.server.with(context.Background()).GetInstance(id)
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

// What a sandbox that was replaced holds beside its checkpoints counts for nobody, so that it goes, however it came there.
func TestNoGarbageOutlivesARestore(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	if !b.charges(context.Background()) {
		t.Skip("the pool charges no instance for its snapshots")
	}
	const much, disk = 200 << 20, 2 << 30
	fill := func(id string) { sh(t, b, id, "head -c 200M /dev/urandom >/root/fill; sync") }
	keep := func(id, label string) {
		t.Helper()
		if _, err := b.CreateCheckpoint(t.Context(), id, label, ""); err != nil {
			t.Fatal(err)
		}
	}
	for name, fillOld := range map[string]func(t *testing.T, id string){
		"stopped": func(t *testing.T, id string) {
			fill(id)
			if err := b.SetState(t.Context(), id, sandbox.Stopped); err != nil {
				t.Fatal(err)
			}
		},
		"in a checkpoint that is deleted": func(t *testing.T, id string) {
			fill(id)
			keep(id, "full")
		},
		"left by a server that was killed": func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			made := boxOf(t, b, sandbox.Spec{Name: "old", Egress: egress.None, Limits: sandbox.Limits{Disk: disk}})
			keep(made.ID, "empty")
			fillOld(t, made.ID)
			b.background.Wait()
			now, err := b.Restore(t.Context(), made.ID, "empty")
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := b.Destroy(context.Background(), now.ID); err != nil {
					t.Error(err)
				}
				b.background.Wait()
			}()
			b.background.Wait()
			switch name {
			case "in a checkpoint that is deleted":
				if err := b.DeleteCheckpoint(t.Context(), now.ID, "full"); err != nil {
					t.Fatal(err)
				}
			case "left by a server that was killed":
				const pieces = 20 // each of which is written within the time that Incus has for an answer
				content := make([]byte, much/pieces)
				_, _ = rand.Read(content) // it never fails
				for i := range pieces {
					err := b.server.with(context.Background()).CreateInstanceFile(made.ID, fmt.Sprintf("/root/fill-%d", i), client.InstanceFileArgs{Type: "file", Mode: 0o600, Content: bytes.NewReader(content)})
					if err != nil {
						t.Fatal(err)
					}
				}
				err := edit(t.Context(), b.server, made.ID, func(put *api.InstancePut) error { put.Config[replacedKey] = "true"; return nil })
				if err != nil {
					t.Fatal(err)
				}
				soon(t, "it is known", func() bool {
					k, err := b.cache.instance(context.Background(), made.ID)
					return err == nil && k.Config[replacedKey] == "true"
				})
				if _, err := b.Sweep(t.Context(), sandbox.SweepRules{}); err != nil {
					t.Error(err)
				}
			}
			b.background.Wait()
			held := int64(0)
			soon(t, "the garbage is gone", func() bool {
				if held, err = b.use(t.Context(), made.ID); err != nil {
					t.Fatal(err)
				}
				return held < much/2
			})
		})
	}
}

// Where a pool charges nothing for checkpoints, each counts with what its sandbox used; with all of its disk where the pool
// doesn't tell that either.
func TestCheckpointsInPoolsThatDoNotCharge(t *testing.T) {
	t.Parallel()
	real := realBackend(t)
	for driver, told := range map[string]bool{"dir": false, "btrfs": true} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			c := real.config
			c.Pool = fmt.Sprintf("pixels-%s-%d", driver, os.Getpid())
			p, err := OpenProvisioner(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.CreatePool(context.Background(), driver, 1<<30); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := deletePool(p.server, c.Pool); err != nil {
					t.Error(err)
				}
			})
			b := openBackend(t, c)
			const disk = 600 << 20
			made := boxOf(t, b, sandbox.Spec{Name: "kept-" + driver, Egress: egress.None, Limits: sandbox.Limits{Disk: disk}})
			cost := func() int64 {
				t.Helper()
				n, err := b.CheckpointCost(t.Context(), made.ID)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			fits := func(n int64) bool { return n == disk && !told || told && n > 50<<20 && n < disk }
			sh(t, b, made.ID, "head -c 60M /dev/urandom >/root/fill; sync")
			if !b.CheckpointsCost(context.Background()) || !fits(cost()) {
				t.Errorf("a checkpoint would take %d", cost())
			}
			if _, err := b.CreateCheckpoint(t.Context(), made.ID, "one", ""); err != nil {
				t.Fatal(err)
			}
			for _, when := range []string{"at once", "later"} {
				all, err := b.Checkpoints(t.Context(), made.ID)
				if err != nil || len(all) != 1 || !fits(all[0].Cost) {
					t.Errorf("%s its checkpoints are %+v, %v", when, all, err)
				}
				b.background.Wait()
			}
			// What was replaced holds its checkpoint, and no garbage beside it that counts for nobody.
			sh(t, b, made.ID, "head -c 200M /dev/urandom >/root/garbage; sync")
			now, err := b.Restore(t.Context(), made.ID, "one")
			if err != nil {
				t.Fatal(err)
			}
			b.background.Wait()
			root := filepath.Join("/var/lib/incus/storage-pools", c.Pool, "containers")
			for file, want := range map[string]bool{"fill": true, "garbage": false} {
				_, err := os.Stat(filepath.Join(root, inProject(b, made.ID), "rootfs/root", file))
				if (err == nil) != want {
					t.Errorf("what was replaced: %s: %v", file, err)
				}
			}
			if err := b.Destroy(t.Context(), now.ID); err != nil {
				t.Error(err)
			}
			b.background.Wait()
		})
	}
}

// inProject is an instance's name as Incus has it among those of all projects.
func inProject(b *Backend, id string) string {
	if b.config.Project == "default" {
		return id
	}
	return b.config.Project + "_" + id
}

// Who fills a sandbox's disk, on which Incus keeps a copy of its settings, keeps nobody from changing them.
func TestAFullDiskKeepsNobodyFromChanges(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	const disk = 300 << 20
	made := boxOf(t, b, sandbox.Spec{Name: "full", Egress: egress.Unrestricted, Limits: sandbox.Limits{Disk: disk}})
	id := made.ID
	fill := func() {
		t.Helper()
		sh(t, b, id, "head -c 400M /dev/urandom >/root/rest 2>/dev/null; sync; for n in $(seq 500); do echo $n >/root/more$n; done 2>/dev/null; sync; true")
	}
	if _, err := b.CreateCheckpoint(t.Context(), id, "before", "it was filled"); err != nil {
		t.Fatal(err)
	}
	b.background.Wait()
	fill()
	set := func(mode egress.Mode, rules ...string) {
		t.Helper()
		_, err := b.SetEgress(t.Context(), id, func(egress.Mode, []egress.Grant) (egress.Mode, []egress.Grant, error) {
			return mode, grantsOf(t, rules...), nil
		})
		if err != nil {
			t.Errorf("set the egress %s: %v", mode, err)
			return
		}
		if e, err := b.Egress(t.Context(), id); err != nil || e.Mode != mode || !e.Enforced || len(e.Rules) != len(rules) {
			t.Errorf("after it was set to %s its egress is %+v, %v", mode, e, err)
		}
	}
	set(egress.Allowlist)
	set(egress.Allowlist, "example.com")
	set(egress.None)
	later := time.Now().Add(3 * time.Hour)
	if err := b.SetExpiry(t.Context(), id, later); err != nil {
		t.Errorf("extend it: %v", err)
	}
	if now, err := b.Get(t.Context(), made.Owner, "full"); err != nil || now.ExpiresAt.Sub(later).Abs() > time.Minute {
		t.Errorf("extended, it is %+v, %v", now, err)
	}
	set(egress.Allowlist)
	now, err := b.Restore(t.Context(), id, "before")
	if err != nil {
		t.Fatalf("restore it: %v", err)
	}
	b.background.Wait()
	soon(t, "what was replaced holds no garbage", func() bool {
		use, err := b.use(t.Context(), id)
		return err == nil && use < 100<<20
	})
	if inst, _, err := b.server.with(context.Background()).GetInstance(id); err != nil || inst.Devices["root"]["size"] != strconv.Itoa(disk) {
		t.Errorf("what was replaced has a disk of %s, %v", inst.Devices["root"]["size"], err)
	}
	id = now.ID
	fill()
	if err := b.DeleteCheckpoint(t.Context(), id, "before"); err != nil {
		t.Errorf("delete its checkpoint: %v", err)
	}
	b.background.Wait() // Incus refuses to stop what is just being changed
	fill()
	if err := b.SetState(t.Context(), id, sandbox.Stopped); err != nil {
		t.Errorf("stop it: %v", err)
	}
	if err := b.Destroy(t.Context(), id); err != nil {
		t.Errorf("destroy it: %v", err)
	}
}

// What a sandbox uses is told also while it stops and starts.
func TestItIsToldWhatOneUsesThatStops(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	box := box(t, b, "restless")
	over := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 6 && err == nil; i++ {
			err = errors.Join(b.SetState(t.Context(), box.ID, sandbox.Stopped), b.SetState(t.Context(), box.ID, sandbox.Running))
		}
		over <- err
	}()
	for {
		select {
		case err := <-over:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
		if used, err := b.use(t.Context(), box.ID); err != nil || used == 0 {
			t.Errorf("%d bytes, %v", used, err)
		}
	}
}
