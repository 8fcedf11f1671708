package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"pixels/egress"
	"pixels/internal/view"
	"pixels/sandbox"
)

func (s Subject) set(t *testing.T, id string, state sandbox.State) {
	t.Helper()
	if err := s.SetState(t.Context(), id, state); err != nil {
		t.Fatalf("set to %s: %v", state, err)
	}
}

func (s Subject) state(t *testing.T, name string) sandbox.State {
	t.Helper()
	got, err := s.Get(t.Context(), s.Owner, name)
	if err != nil {
		t.Fatal(err)
	}
	return got.State
}

func (s Subject) checkpoint(t *testing.T, id, label string) {
	t.Helper()
	if _, err := s.CreateCheckpoint(t.Context(), id, label, "of "+label); err != nil {
		t.Fatal(err)
	}
}

// labels lists the checkpoints of a sandbox with their descriptions.
func (s Subject) labels(t *testing.T, id string) (text string) {
	t.Helper()
	list, err := s.Checkpoints(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		text += fmt.Sprintf("%s (%s) ", c.Label, c.Description)
	}
	return text
}

func states(t *testing.T, s Subject) {
	box := s.create(t, sandbox.Spec{Name: "box"})
	for _, state := range []sandbox.State{
		sandbox.Running, sandbox.Paused, sandbox.Paused, sandbox.Running, sandbox.Stopped, sandbox.Stopped,
		sandbox.Running, sandbox.Paused, sandbox.Stopped, sandbox.Running,
	} {
		s.set(t, box.ID, state)
		if got := s.state(t, "box"); got != state {
			t.Fatalf("set to %s it is %s", state, got)
		}
		_, err := s.Exec(t.Context(), box.ID, sandbox.Command{Shell: "true"})
		if running := state == sandbox.Running; running && err != nil || !running && !errors.Is(err, sandbox.ErrState) {
			t.Errorf("a command while it is %s: %v", state, err)
		}
	}
	s.set(t, box.ID, sandbox.Stopped)
	if err := s.SetState(t.Context(), box.ID, sandbox.Paused); !errors.Is(err, sandbox.ErrState) {
		t.Errorf("pause what is stopped: %v", err)
	}
	if err := s.SetState(t.Context(), "pixels-absent", sandbox.Running); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("start what is not there: %v", err)
	}
}

func stoppedAndPaused(t *testing.T, s Subject) {
	box := s.create(t, sandbox.Spec{Name: "box", Egress: egress.Unrestricted, Env: map[string]string{"A": "1"}})
	s.output(t, box.ID, "echo kept >note; (while true; do echo x >>ticks; sleep 0.05; done) >/dev/null 2>&1 & sleep 0.2")
	s.set(t, box.ID, sandbox.Paused)
	s.set(t, box.ID, sandbox.Running)
	before := s.output(t, box.ID, "cat ticks")
	if after := s.output(t, box.ID, "sleep 0.5; cat ticks"); len(after) <= len(before) {
		t.Error("after a pause a process does not go on")
	}
	s.set(t, box.ID, sandbox.Stopped)
	s.set(t, box.ID, sandbox.Running)
	if got := s.output(t, box.ID, "hostname; cat note; echo $A"); got != "box\nkept\n1" {
		t.Errorf("after a stop it is %q", got)
	}
	before = s.output(t, box.ID, "cat ticks")
	if after := s.output(t, box.ID, "sleep 0.3; cat ticks"); after != before {
		t.Error("a process outlived the stop")
	}
	if got, err := s.Get(t.Context(), s.Owner, "box"); err != nil || got.Address == "" {
		t.Errorf("started again it is %+v, %v", got, err)
	}
}

func restore(t *testing.T, s Subject) {
	expires := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	box := s.create(t, sandbox.Spec{Name: "box", From: "somewhere", Env: map[string]string{"A": "1"}, Labels: map[string]string{"l": "v"}, ExpiresAt: expires})
	for _, label := range []string{"one", "two", "three"} {
		s.output(t, box.ID, "echo "+label+" >note")
		s.checkpoint(t, box.ID, label)
	}
	s.output(t, box.ID, "echo lost >note; echo lost >extra")
	later := expires.Add(time.Hour)
	if err := s.SetExpiry(t.Context(), box.ID, later); err != nil {
		t.Fatal(err)
	}
	id := box.ID
	for _, label := range []string{"two", "three", "one"} {
		got, err := s.Restore(t.Context(), id, label)
		if err != nil {
			t.Fatalf("restore %s: %v", label, err)
		}
		found, err := s.Get(t.Context(), s.Owner, "box")
		if err != nil || found.ID != got.ID || got.State != sandbox.Running || got.From != box.From || got.Labels["l"] != "v" ||
			!got.CreatedAt.Equal(box.CreatedAt) || !got.ExpiresAt.Equal(later) || got.Egress != box.Egress {
			t.Errorf("restored %+v, found %+v, %v; it was %+v", got, found, err, box)
		}
		id = got.ID
		if text := s.output(t, id, "hostname; cat note; cat extra 2>/dev/null || echo none; echo $A"); text != "box\n"+label+"\nnone\n1" {
			t.Errorf("restored to %s it is %q", label, text)
		}
		if got := s.labels(t, id); got != "one (of one) two (of two) three (of three) " {
			t.Errorf("after the restore of %s there are the checkpoints %q", label, got)
		}
		if list, err := s.List(t.Context(), s.Owner); err != nil || len(list) != 1 {
			t.Errorf("after it there are %+v, %v", list, err)
		}
		s.output(t, id, "echo lost >extra")
	}
	if _, err := s.CreateCheckpoint(t.Context(), id, "two", ""); !errors.Is(err, sandbox.ErrExists) {
		t.Errorf("a label of before: %v", err)
	}
	s.checkpoint(t, id, "four")
	if _, err := s.Restore(t.Context(), id, "absent"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	clone := s.create(t, sandbox.Spec{Name: "clone", SourceID: id, SourceLabel: "three"})
	if text := s.output(t, clone.ID, "hostname; cat note"); text != "clone\nthree" || s.labels(t, clone.ID) != "" {
		t.Errorf("a clone of an earlier checkpoint is %q", text)
	}
	for _, label := range []string{"one", "two", "three", "four"} {
		if err := s.DeleteCheckpoint(t.Context(), id, label); err != nil {
			t.Errorf("delete %s: %s", label, view.Error(err, view.Terminal))
		}
	}
	if got := s.labels(t, id); got != "" {
		t.Errorf("all deleted, there are %q", got)
	}
	s.checkpoint(t, id, "stopped")
	s.set(t, id, sandbox.Stopped)
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.Restore(context.Background(), id, "stopped") })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, sandbox.ErrState) && !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("one of several restores at once: %v", err)
		}
	}
	if won == 0 || s.state(t, "box") != sandbox.Running {
		t.Errorf("%d restores at once went well; it is %s", won, s.state(t, "box"))
	}
}

func deleteCheckpoint(t *testing.T, s Subject) {
	box := s.create(t, sandbox.Spec{Name: "box"})
	s.output(t, box.ID, "echo kept >note")
	s.checkpoint(t, box.ID, "a")
	s.checkpoint(t, box.ID, "b")
	clone := s.create(t, sandbox.Spec{Name: "clone", SourceID: box.ID, SourceLabel: "a"})
	if err := s.DeleteCheckpoint(t.Context(), box.ID, "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteCheckpoint(t.Context(), box.ID, "a"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("a second time: %v", err)
	}
	if got := s.labels(t, box.ID); got != "b (of b) " {
		t.Errorf("left are %q", got)
	}
	if got := s.output(t, clone.ID, "cat note"); got != "kept" {
		t.Errorf("the clone has %q", got)
	}
	if _, err := s.CreateCheckpoint(t.Context(), box.ID, "a", ""); err != nil {
		t.Errorf("the label is not free: %v", err)
	}
	if got := s.labels(t, box.ID); got != "b (of b) a () " {
		t.Errorf("with a new one there are %q", got)
	}
}

func copyOfPresent(t *testing.T, s Subject) {
	box := s.create(t, sandbox.Spec{Name: "box", Env: map[string]string{"A": "1"}, Labels: map[string]string{"l": "v"}})
	s.checkpoint(t, box.ID, "early")
	s.output(t, box.ID, "echo now >note")
	made := s.create(t, sandbox.Spec{Name: "copy", SourceID: box.ID, From: "box"})
	if got := s.output(t, made.ID, "hostname; cat note; echo $A"); got != "copy\nnow\n1" || len(made.Labels) != 0 || made.From != "box" {
		t.Errorf("the copy is %q, %+v", got, made)
	}
	if got := s.labels(t, made.ID); got != "" {
		t.Errorf("the copy has the checkpoints %q", got)
	}
}

func leases(t *testing.T, s Subject) {
	soon := time.Now().Add(-time.Second)
	over := s.create(t, sandbox.Spec{Name: "over", ExpiresAt: time.Now().Add(time.Hour)}) // else others may sweep it before it is ready
	extended := s.create(t, sandbox.Spec{Name: "extended", ExpiresAt: time.Now().Add(time.Hour)})
	kept := s.create(t, sandbox.Spec{Name: "kept", ExpiresAt: time.Now().Add(time.Hour)})
	later := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	for _, end := range []time.Time{soon, later} { // the second at once: others sweep, too
		if err := s.SetExpiry(t.Context(), extended.ID, end); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetExpiry(t.Context(), over.ID, soon); err != nil {
		t.Fatal(err)
	}
	// Several at once, as servers do. Another one on this machine may be first: then nobody here sees it expire.
	var wg sync.WaitGroup
	var mu sync.Mutex
	var expired []string
	for range 3 {
		wg.Go(func() {
			some, err := s.Sweep(context.Background(), sandbox.SweepRules{})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			for _, box := range some.Destroyed {
				if box.Owner == s.Owner {
					expired = append(expired, box.Name)
				}
			}
		})
	}
	wg.Wait()
	if len(expired) > 1 || len(expired) == 1 && expired[0] != "over" {
		t.Errorf("expired are %v", expired)
	}
	list, err := s.List(t.Context(), s.Owner)
	if err != nil || len(list) != 2 || list[0].ID != extended.ID || list[1].ID != kept.ID || !list[0].ExpiresAt.Equal(later) {
		t.Errorf("left are %+v, %v", list, err)
	}
	if err := s.SetExpiry(t.Context(), over.ID, later); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("extend what is over: %v", err)
	}
}

func renamed(t *testing.T, s Subject) {
	box := s.create(t, sandbox.Spec{Name: "old", Labels: map[string]string{"l": "v"}})
	s.create(t, sandbox.Spec{Name: "taken"})
	s.checkpoint(t, box.ID, "early")
	if err := s.Rename(t.Context(), box.ID, "taken"); !errors.Is(err, sandbox.ErrExists) {
		t.Errorf("to a name that is taken: %v", err)
	}
	if got, err := s.Get(t.Context(), s.Owner, "old"); err != nil || got.ID != box.ID {
		t.Errorf("then it is %+v, %v", got, err)
	}
	if err := s.Rename(t.Context(), box.ID, "new"); err != nil {
		t.Fatal(err)
	}
	if err := s.Rename(t.Context(), box.ID, "new"); err != nil {
		t.Errorf("to its own name: %v", err)
	}
	got, err := s.Get(t.Context(), s.Owner, "new")
	if err != nil || got.Labels["l"] != "v" || got.State != sandbox.Running || !got.CreatedAt.Equal(box.CreatedAt) {
		t.Errorf("it is %+v, %v", got, err)
	}
	if _, err := s.Get(t.Context(), s.Owner, "old"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("by its old name it is there: %v", err)
	}
	if name := s.output(t, box.ID, "hostname"); name != "new" {
		t.Errorf("its host name is %q", name)
	}
	if got := s.labels(t, box.ID); got != "early (of early) " {
		t.Errorf("its checkpoints are %q", got)
	}
	again := s.create(t, sandbox.Spec{Name: "old"})
	for _, state := range []sandbox.State{sandbox.Stopped, sandbox.Running} {
		if err := s.SetState(t.Context(), box.ID, state); err != nil {
			t.Fatal(err)
		}
	}
	if name := s.output(t, box.ID, "hostname"); name != "new" {
		t.Errorf("after a start its host name is %q", name)
	}
	if name := s.output(t, again.ID, "hostname"); name != "old" {
		t.Errorf("that of the next one is %q", name)
	}
	if _, err := s.Sweep(t.Context(), sandbox.SweepRules{}); err != nil {
		t.Error(err)
	}
	restored, err := s.Restore(t.Context(), box.ID, "early")
	if err != nil {
		t.Fatal(err)
	}
	if name := s.output(t, restored.ID, "hostname"); name != "new" || restored.Name != "new" {
		t.Errorf("restored it is called %q and %q", restored.Name, name)
	}
}

func resized(t *testing.T, s Subject) {
	box := s.create(t, sandbox.Spec{Name: "box", Limits: sandbox.Limits{CPU: 1, Memory: 256 << 20, Disk: 4 << 30, Processes: 500}})
	if err := s.Resize(t.Context(), box.ID, sandbox.Limits{CPU: 2, Memory: 512 << 20, Disk: 5 << 30}); err != nil {
		t.Fatal(err)
	}
	want := sandbox.Limits{CPU: 2, Memory: 512 << 20, Disk: 5 << 30, Processes: 500}
	if got, err := s.Get(t.Context(), s.Owner, "box"); err != nil || got.Limits != want {
		t.Errorf("it has %+v, want %+v, %v", got.Limits, want, err)
	}
	s.checkpoint(t, box.ID, "early")
	restored, err := s.Restore(t.Context(), box.ID, "early")
	if err != nil || restored.Limits != want {
		t.Errorf("restored it has %+v, %v", restored.Limits, err)
	}
	want.Disk = 6 << 30
	if err := s.Resize(t.Context(), restored.ID, sandbox.Limits{Disk: want.Disk}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), s.Owner, "box"); err != nil || got.Limits != want {
		t.Errorf("then it has %+v, want %+v, %v", got.Limits, want, err)
	}
}
