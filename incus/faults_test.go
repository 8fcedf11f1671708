package incus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

func TestASandboxThatDiesDuringExec(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	for name, die := range map[string]func(id string) error{
		"stopped by hand": func(id string) error {
			op, err := b.server.with(context.Background()).UpdateInstanceState(id, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
			_, err = finish(t.Context(), b.server, op, err)
			return err
		},
		"destroyed": func(id string) error { return b.Destroy(t.Context(), id) },
		"by its own poweroff": func(id string) error {
			_, err := b.Exec(t.Context(), id, sandbox.Command{Argv: []string{"/sbin/poweroff"}, User: "root"})
			return err
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			made := box(t, b, "dies")
			m := manager.New(b, manager.Defaults{})
			type ended struct {
				r   manager.ExecResult
				err error
			}
			end := make(chan ended, 1)
			go func() {
				r, err := m.Exec(context.Background(), manager.Agent(made.Owner), manager.ExecRequest{Name: made.Name, Shell: "touch begun; sleep 30", Timeout: 40 * time.Second})
				end <- ended{r, err}
			}()
			soon(t, "the command has begun", func() bool { return sh(t, b, made.ID, "ls /home/pixel") == "begun" })
			if err := die(made.ID); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-end:
				if got.err == nil && got.r.ExitCode == 0 {
					t.Errorf("the command ended with %+v", got.r)
				}
				t.Logf("the command ended with %+v, %v", got.r, got.err)
			case <-time.After(25 * time.Second):
				t.Error("the command does not end")
			}
		})
	}
}

// With the pool full every call says so, what was begun is undone, and what is there can be destroyed.
func TestAFullPool(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	c := b.config
	c.Pool = fmt.Sprintf("pixels-full-%d", os.Getpid())
	if pool, _, err := b.server.with(context.Background()).GetStoragePool(b.config.Pool); err != nil || pool.Driver != "btrfs" {
		t.Skipf("the pool is no btrfs: %v", err)
	}
	p, err := OpenProvisioner(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CreatePool(context.Background(), "btrfs", 700<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := deletePool(p.server, c.Pool); err != nil {
			t.Error(err)
		}
	})
	small := openBackend(t, c)
	owner := fmt.Sprintf("test-full-%d", os.Getpid())
	spec := func(name string) sandbox.Spec {
		return sandbox.Spec{Name: name, Owner: owner, Image: c.Image, Egress: egress.None, ExpiresAt: time.Now().Add(time.Hour)}
	}
	made, err := small.Create(t.Context(), spec("fills"))
	if err != nil {
		t.Fatal(err)
	}
	m := manager.New(small, manager.Defaults{})
	r, err := m.Exec(t.Context(), manager.Agent(owner), manager.ExecRequest{Name: "fills", Shell: "head -c 900M /dev/urandom >big; sync; df . | tail -1; echo x >more; sync", User: "root"})
	t.Logf("filled: %+v, %v", r, err)
	if _, err := m.WriteFile(t.Context(), manager.Agent(owner), manager.WriteRequest{Name: "fills", Path: "/root/new", Content: make([]byte, 8<<20)}); err == nil {
		t.Error("a file can be written")
	} else {
		t.Logf("write: %v", err)
	}
	if again, err := small.Create(t.Context(), spec("second")); err == nil {
		t.Log("another one could be made; the pool had room for its few files")
		if err := small.Destroy(t.Context(), again.ID); err != nil {
			t.Error(err)
		}
	} else {
		t.Logf("create: %v", err)
	}
	small.background.Wait()
	if list, err := small.List(t.Context(), owner); err != nil || len(list) != 1 {
		t.Errorf("there are %+v, %v", list, err)
	}
	if err := small.Destroy(t.Context(), made.ID); err != nil {
		t.Fatalf("it can't be destroyed: %v", err)
	}
	small.background.Wait()
	if left := ofOwner(t, small, owner); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

// A clock that is set back ends no lease early, and takes nothing that is being made for something left behind.
func TestAClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	b.now = func() time.Time { return time.Now().Add(-3 * time.Hour) }
	made := box(t, b, "clock")
	if err := b.SetExpiry(t.Context(), made.ID, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.sweep(t.Context(), made.Owner, sandbox.SweepRules{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), made.Owner, made.Name); err != nil {
		t.Errorf("by the clock that was set back its lease is not over: %v", err)
	}
	if b.left(api.Instance{CreatedAt: time.Now()}) {
		t.Error("what is just being made counts as left behind")
	}
	b.now = func() time.Time { return time.Now().Add(2 * time.Hour) } // by which nobody else sweeps
	soon(t, "by the right clock its lease is over", func() bool {
		if _, err := b.sweep(t.Context(), made.Owner, sandbox.SweepRules{}); err != nil {
			t.Fatal(err)
		}
		_, err := b.Get(t.Context(), made.Owner, made.Name)
		return errors.Is(err, sandbox.ErrNotFound)
	})
}
