package incus

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// ahead is a backend whose clock goes so far ahead as the test says.
func ahead(t *testing.T) (*Backend, *atomic.Int64) {
	t.Helper()
	b, by := realBackend(t), &atomic.Int64{}
	b.now = func() time.Time { return time.Now().Add(time.Duration(by.Load())) }
	return b, by
}

// longLived is a sandbox whose lease no clock of these tests ends.
func longLived(t *testing.T, b *Backend, name string) sandbox.Sandbox {
	t.Helper()
	box := boxOf(t, b, sandbox.Spec{Name: name, Egress: egress.None})
	if err := b.SetExpiry(t.Context(), box.ID, time.Now().Add(1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	box, err := b.Get(t.Context(), box.Owner, name)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// A sandbox that is used in any way goes on; one that nobody uses is stopped, and woken once by whoever uses it.
func TestWhatNobodyUsesSleepsUntilItIsUsed(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	later, clock := ahead(t)
	box := longLived(t, b, "idle")
	idle := sandbox.SweepRules{Idle: time.Hour}
	sweep := func() int {
		t.Helper()
		clock.Add(int64(2 * time.Hour))
		swept, err := later.sweep(t.Context(), box.Owner, idle)
		if err != nil {
			t.Fatal(err)
		}
		return len(swept.Idle)
	}
	if swept, err := later.sweep(t.Context(), box.Owner, idle); err != nil || len(swept.Idle) != 0 {
		t.Errorf("just made: %+v, %v", swept, err)
	}
	run, err := b.StartRun(t.Context(), box.ID, sandbox.Command{Argv: []string{"sleep", "1000"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := sweep(); n != 0 {
		t.Error("with a command in the background it is stopped")
	}
	if _, err := b.LookAtRun(t.Context(), box.ID, run, sandbox.RunQuery{Cancel: true}); err != nil {
		t.Fatal(err)
	}
	at, leave := context.WithCancel(t.Context())
	var console sync.WaitGroup
	typed, keys := io.Pipe()
	defer keys.Close()
	console.Go(func() {
		_, _ = b.Exec(at, box.ID, sandbox.Command{Console: &sandbox.Console{Session: "mine"}, Terminal: &sandbox.Terminal{Size: sandbox.TerminalSize{Columns: 80, Rows: 24}}, Stdin: typed})
	})
	attached := func(want int) func() bool {
		return func() bool {
			all, err := b.Sessions(t.Context(), box.ID, "")
			return err == nil && len(all) == 1 && all[0].Name == "mine" && all[0].Attached == want
		}
	}
	soon(t, "somebody is at the console", attached(1))
	if n := sweep(); n != 0 {
		t.Error("with somebody at a console it is stopped")
	}
	leave()
	console.Wait()
	soon(t, "nobody is at the console", attached(0))
	if n := sweep(); n != 1 {
		t.Fatalf("unused, %d are stopped", n)
	}
	slept, err := b.Get(t.Context(), box.Owner, box.Name)
	if err != nil || !slept.Asleep || slept.State != sandbox.Stopped || !slept.ExpiresAt.Equal(box.ExpiresAt) {
		t.Fatalf("asleep it is %+v, %v", slept, err)
	}
	m := manager.New(b, manager.Defaults{})
	var woken atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			caller := manager.Agent(box.Owner)
			caller.Woken = func(string) { woken.Add(1) }
			if got, err := m.Exec(t.Context(), caller, manager.ExecRequest{Name: box.Name, Shell: "cat /proc/sys/kernel/hostname"}); err != nil || got.Stdout != "idle\n" {
				t.Errorf("a command in what slept: %+v, %v", got, err)
			}
		})
	}
	all.Wait()
	awake, err := b.Get(t.Context(), box.Owner, box.Name)
	if err != nil || awake.Asleep || awake.State != sandbox.Running || !awake.ExpiresAt.Equal(box.ExpiresAt) || awake.Egress != box.Egress || woken.Load() == 0 {
		t.Errorf("awake it is %+v, %v; %d calls woke it", awake, err, woken.Load())
	}
	if err := b.SetState(t.Context(), box.ID, sandbox.Stopped); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Exec(t.Context(), manager.Agent(box.Owner), manager.ExecRequest{Name: box.Name, Shell: "true"}); !errors.Is(err, sandbox.ErrState) {
		t.Errorf("what was stopped by hand is woken: %v", err)
	}
}

// Who uses a sandbox just when it is to be stopped is served.
func TestNobodyIsCutOffByAnIdleStop(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	later, clock := ahead(t)
	box := longLived(t, b, "race")
	user, use := ahead(t)
	m := manager.New(user, manager.Defaults{})
	stopped := 0
	for i := range 12 {
		clock.Add(int64(2 * time.Hour))
		use.Store(clock.Load())
		var both sync.WaitGroup
		both.Go(func() {
			swept, err := later.sweep(t.Context(), box.Owner, sandbox.SweepRules{Idle: time.Hour})
			if err != nil {
				t.Error(err)
			}
			stopped += len(swept.Idle)
		})
		both.Go(func() {
			time.Sleep(time.Duration(i) * 15 * time.Millisecond)
			if got, err := m.Exec(t.Context(), manager.Agent(box.Owner), manager.ExecRequest{Name: box.Name, Shell: "sleep 0.3; echo done"}); err != nil || got.Stdout != "done\n" {
				t.Errorf("after %d ms: %+v, %v", i*15, got, err)
			}
		})
		both.Wait()
	}
	t.Logf("stopped %d of 12 times", stopped)
}

// The end of a lease stops a sandbox where that is what it is to do, and destroys it a week later.
func TestALeaseThatEndsStops(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	later, clock := ahead(t)
	box := boxOf(t, b, sandbox.Spec{Name: "leased", Egress: egress.None})
	stop := sandbox.SweepRules{StopAtEnd: true}
	sweep := func(by time.Duration) sandbox.Swept {
		t.Helper()
		clock.Add(int64(by))
		swept, err := later.sweep(t.Context(), box.Owner, stop)
		if err != nil {
			t.Fatal(err)
		}
		return swept
	}
	if s := sweep(2 * time.Hour); len(s.Stopped) != 1 || len(s.Destroyed) != 0 {
		t.Fatalf("at its end: %+v", s)
	}
	over, err := b.Get(t.Context(), box.Owner, box.Name)
	if err != nil || over.State != sandbox.Stopped || time.Until(over.DestroyedAt).Round(time.Hour) != 2*time.Hour+sandbox.Grace {
		t.Fatalf("after its end it is %+v, %v", over, err)
	}
	err = b.SetState(t.Context(), box.ID, sandbox.Running)
	if hints := fault.Hints(err); !errors.Is(err, sandbox.ErrState) || len(hints) == 0 || hints[0].Action != fault.Extend {
		t.Errorf("it is started: %v", err)
	}
	if s := sweep(sandbox.Grace - time.Hour); len(s.Stopped)+len(s.Destroyed) != 0 {
		t.Errorf("in its grace: %+v", s)
	}
	if err := b.SetExpiry(t.Context(), box.ID, later.now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := b.SetState(t.Context(), box.ID, sandbox.Running); err != nil {
		t.Errorf("extended it does not start: %v", err)
	}
	if s := sweep(2 * time.Hour); len(s.Stopped) != 1 {
		t.Errorf("at its second end: %+v", s)
	}
	if s := sweep(sandbox.Grace + time.Minute); len(s.Destroyed) != 1 {
		t.Errorf("after its grace: %+v", s)
	}
	if _, err := b.Get(t.Context(), box.Owner, box.Name); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("after its grace it is there: %v", err)
	}
}
