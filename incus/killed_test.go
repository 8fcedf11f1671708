package incus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"
	"go.uber.org/goleak"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/testenv"
	"pixels/sandbox"
)

// The test binary is also the server that is killed: what it is to do is in its environment.
const (
	killedDoes    = "PIXELS_TEST_DOES"
	killedOwner   = "PIXELS_TEST_OWNER"
	killedID      = "PIXELS_TEST_ID"
	killedNetwork = "PIXELS_TEST_NETWORK"
	killedProject = "PIXELS_TEST_PROJECT"
)

func TestMain(m *testing.M) {
	if does := os.Getenv(killedDoes); does != "" {
		if err := doUntilKilled(does, os.Getenv(killedOwner), os.Getenv(killedID)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if p, err := OpenProvisioner(context.Background(), Config{}); err == nil && !testenv.WithoutIncus() { // else tests are skipped
		if err := clearLeftovers(context.Background(), p.server); err != nil {
			fmt.Fprintln(os.Stderr, "clear the leftovers of a killed run:", err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if err := closeGrounds(); err != nil {
		fmt.Fprintln(os.Stderr, "close the labs:", err)
		code = 1
	}
	// A Provisioner is for programs that end, and leaves its connection to the HTTP client.
	if err := goleak.Find(goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop")); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines outlive the tests:", err)
		code = 1
	}
	os.Exit(code)
}

func doUntilKilled(does, owner, id string) error {
	b, err := OpenBackend(Config{Project: os.Getenv(killedProject), Network: os.Getenv(killedNetwork)})
	if err != nil {
		return err
	}
	spec := sandbox.Spec{Name: "made", Owner: owner, Egress: egress.Allowlist, ExpiresAt: time.Now().Add(time.Hour)}
	fmt.Println("begun")
	switch does {
	case "create":
		spec.Image = b.config.Image
		_, err = b.Create(context.Background(), spec)
	case "clone":
		spec.SourceID, spec.SourceLabel = id, "ready"
		_, err = b.Create(context.Background(), spec)
	case "restore":
		_, err = b.Restore(context.Background(), id, "ready")
	case "destroy":
		err = b.Destroy(context.Background(), id)
	case "human":
		err = beHuman(b, owner)
	}
	b.Close()
	return err
}

// killAfter runs a server that does something, and kills it some time after it began. It tells whether it had ended before.
func killAfter(t *testing.T, c Config, does, owner, id string, after time.Duration) (ended bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), killedDoes+"="+does, killedOwner+"="+owner, killedID+"="+id, killedNetwork+"="+c.Network, killedProject+"="+c.Project)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatalf("it did not begin: %v", err)
	}
	time.Sleep(after)
	_ = cmd.Process.Kill() // it may have ended
	return cmd.Wait() == nil
}

// ofOwner returns the instances of an owner, whatever they are.
func ofOwner(t *testing.T, b *Backend, owner string) (all []api.Instance) {
	t.Helper()
	list, err := b.server.with(context.Background()).GetInstances(api.InstanceTypeContainer)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.Config[ownerKey] == owner {
			all = append(all, i)
		}
	}
	return all
}

// settled sweeps, as the next server does, until what was left is finished or gone.
func settled(t *testing.T, b *Backend, owner string, instances int) {
	t.Helper()
	var left []api.Instance
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err := b.sweep(t.Context(), owner, sandbox.SweepRules{}); err != nil {
			t.Logf("sweep: %v", err) // Incus may still be at what the killed one asked for; the next one ends it
		}
		b.background.Wait()
		if left = ofOwner(t, b, owner); len(left) == instances {
			return
		}
	}
	for _, i := range left {
		t.Errorf("left is %s: %s, %v", i.Name, i.Status, i.Config)
	}
	t.Fatalf("%d instances are left, want %d", len(left), instances)
}

// moments are n durations, from none to almost all.
func moments(all time.Duration, n int) (out []time.Duration) {
	for i := range n {
		out = append(out, all*time.Duration(i)/time.Duration(n))
	}
	return out
}

// A server that is killed at any point leaves nothing that looks good and isn't, and the next one tidies up.
func TestKilledAtAnyPoint(t *testing.T) {
	t.Parallel()
	b := newLab(t).Backend // where nobody else makes and loses wires
	b.stale = 0
	owner := fmt.Sprintf("test-killed-%d", os.Getpid())
	t.Cleanup(func() {
		for _, i := range ofOwner(t, b, owner) {
			if err := remove(context.Background(), b.server, i.Name); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
				t.Error(err)
			}
		}
	})
	base, err := b.Create(t.Context(), sandbox.Spec{Name: "base", Owner: owner, Image: b.config.Image, Egress: egress.Allowlist, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	sh(t, b, base.ID, "echo kept >/root/note")
	if _, err := b.CreateCheckpoint(t.Context(), base.ID, "ready", ""); err != nil {
		t.Fatal(err)
	}
	works := func(s sandbox.Sandbox) {
		t.Helper()
		if s.State == sandbox.Running {
			// It may be at its start still.
			soon(t, "what is shown as running works", func() bool {
				var out bytes.Buffer
				code, err := b.Exec(t.Context(), s.ID, sandbox.Command{Argv: []string{"hostname"}, Stdout: &out})
				return err == nil && code == 0 && out.String() == s.Name+"\n" || errors.Is(err, sandbox.ErrNotFound)
			})
			soon(t, "what is shown as running has a way out", func() bool {
				e, err := b.Egress(t.Context(), s.ID)
				return err == nil && e.Enforced || errors.Is(err, sandbox.ErrNotFound)
			})
		}
	}
	for _, does := range []string{"create", "clone"} {
		before := 0
		for _, after := range moments(400*time.Millisecond, testenv.Rounds(12, 200)) {
			t.Logf("%s, killed after %s", does, after)
			ended := killAfter(t, b.config, does, owner, base.ID, after)
			if !ended {
				before++
			}
			// What Incus was at goes on, and what was started may become a good sandbox all the same; what is shown as one is.
			list, err := b.List(t.Context(), owner)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range list {
				works(s)
			}
			soon(t, "what was left is whole or gone", func() bool {
				if _, err := b.sweep(t.Context(), owner, sandbox.SweepRules{}); err != nil {
					t.Logf("sweep: %v", err)
				}
				b.background.Wait()
				for _, i := range ofOwner(t, b, owner) {
					if !whole(i) {
						return false
					}
				}
				return true
			})
			if made, err := b.Get(t.Context(), owner, "made"); err == nil {
				works(made)
				if err := b.Destroy(t.Context(), made.ID); err != nil {
					t.Fatal(err)
				}
			} else if !errors.Is(err, sandbox.ErrNotFound) {
				t.Fatal(err)
			}
			settled(t, b, owner, 1)
		}
		if before < 3 {
			t.Errorf("only %d of the kills came before the end of %s", before, does)
		}
	}
	for _, after := range moments(500*time.Millisecond, testenv.Rounds(13, 200)) {
		t.Logf("restore, killed after %s", after)
		sh(t, b, base.ID, "echo lost >/root/note")
		killAfter(t, b.config, "restore", owner, base.ID, after)
		deadline := time.Now().Add(30 * time.Second)
		for { // one instance, or two: the sandbox and the holder of its checkpoint
			if _, err := b.sweep(t.Context(), owner, sandbox.SweepRules{}); err != nil {
				t.Logf("sweep: %v", err)
			}
			b.background.Wait()
			all := ofOwner(t, b, owner)
			made := 0
			for _, i := range all {
				if whole(i) {
					made++
				}
			}
			if made == len(all) && (len(all) == 1 || len(all) == 2 && stopped(all) == 1) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("left are %d instances, %d of them whole, %d stopped", len(all), made, stopped(all))
			}
			time.Sleep(20 * time.Millisecond)
		}
		list, err := b.List(t.Context(), owner)
		if err != nil || len(list) != 1 || list[0].Name != "base" || list[0].State != sandbox.Running {
			t.Fatalf("there are %+v, %v", list, err)
		}
		works(list[0])
		want := "lost"
		if list[0].ID != base.ID {
			want = "kept"
		}
		if got := sh(t, b, list[0].ID, "cat /root/note"); got != want {
			t.Errorf("its files say %q, want %q", got, want)
		}
		base = list[0]
		if c, err := b.Checkpoints(t.Context(), base.ID); err != nil || len(c) != 1 || c[0].Label != "ready" {
			t.Fatalf("its checkpoints are %v, %v", c, err)
		}
	}
	for _, after := range []time.Duration{0, 10 * time.Millisecond, 30 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second} {
		t.Logf("destroy, killed after %s", after)
		killAfter(t, b.config, "destroy", owner, base.ID, after)
		list, err := b.List(t.Context(), owner)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 {
			works(list[0])
			continue // it was killed before it had done anything
		}
		settled(t, b, owner, 0)
		noWireLeaks(t, b)
		return
	}
	t.Error("it was never destroyed")
}

// noWireLeaks sweeps, and fails the test when the gateway has a sandbox on a wire that isn't there.
func noWireLeaks(t *testing.T, b *Backend) {
	t.Helper()
	all, err := b.cache.fresh(context.Background())
	if err == nil {
		err = b.mendWires(t.Context(), all)
	}
	if err != nil {
		t.Fatal(err)
	}
	reply, err := b.wires.ask(t.Context(), gateway.Request{Op: gateway.Wires})
	if err != nil {
		t.Fatal(err)
	}
	for _, wire := range reply.Wires {
		if wire.State == gateway.Taken && all[wire.Sandbox] == nil {
			t.Errorf("a wire leaked: %+v", wire)
		}
	}
}

func stopped(all []api.Instance) (n int) {
	for _, i := range all {
		if strings.EqualFold(i.Status, "stopped") {
			n++
		}
	}
	return n
}
