package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pixels/egress"
	"pixels/sandbox"
)

// Subject is a backend under test.
type Subject struct {
	sandbox.Backend
	Image string // one that the backend has
	Owner string // for whom, and for whose name with an addition, nothing else makes sandboxes

	// Reached leaves out the stories that do not depend on how a backend is reached, where it is put through them another way.
	Reached bool
}

// Run puts a backend through the suite. Everything it makes belongs to owners whose names begin with s.Owner, one for each
// story, and is gone afterwards.
func Run(t *testing.T, s Subject) {
	stories := []struct {
		name string
		tell func(*testing.T, Subject)
	}{
		{"a sandbox is created, found and destroyed", createFindDestroy},
		{"in one sandbox", inOneSandbox},
		{"a clone has the checkpoint's files and a life of its own", cloneOfCheckpoint},
		{"a creation that is given up leaves nothing", createCancelled},
		{"checkpoints are listed in order and their labels are unique", checkpointList},
		{"states are set and can be told", states},
		{"what is stopped keeps its files and what is paused its processes", stoppedAndPaused},
		{"a restore brings back the files and loses no checkpoint", restore},
		{"a checkpoint is deleted and its clones stay", deleteCheckpoint},
		{"a sandbox is copied as it is now", copyOfPresent},
		{"a lease ends a sandbox unless it is extended", leases},
		{"a sandbox is renamed", renamed},
		{"a sandbox is resized", resized},
		{"of several creations of one name one wins", oneNameAtOnce},
		{"owners don't see each other's sandboxes", owners},
		{"what is not there is not found", notFound},
	}
	if s.Reached { // the first ones
		stories = stories[:4]
	}
	for i, story := range stories {
		t.Run(strings.ReplaceAll(story.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			own := s
			own.Owner = fmt.Sprintf("%s-%d", s.Owner, i)
			defer own.destroyAll(t)
			story.tell(t, own)
		})
	}
}

// inOneSandbox tells, one after the other, the stories that take a sandbox as they find it.
func inOneSandbox(t *testing.T, s Subject) {
	box := s.create(t, sandbox.Spec{Name: "box", Env: map[string]string{"SET": "by sandbox", "OVER": "by sandbox", "A": "1"}})
	for _, story := range []struct {
		name string
		tell func(*testing.T, Subject, sandbox.Sandbox)
	}{
		{"a command gets what it was given and gives back what it did", execWhole},
		{"what can't be run is a result or says why", execFailures},
		{"output comes as it is written, and long output keeps its ends", execStreams},
		{"a command that is cancelled ends with all it started", execCancelled},
		{"a run goes on behind the call and can be looked at", runsGoOn},
		{"files are written and read, text and bytes and images", filesReadAndWritten},
		{"files are edited exactly", filesEdited},
		{"what can't be done with files says why and changes nothing", filesMissing},
		{"folders are listed by depth, pattern and page", filesListed},
		{"files are copied in and out, and stay where they are let", filesCopied},
		{"a run is given more to read, and signals", runsAreFed},
		{"a run ends at its timeout, when it is cancelled and with its sandbox", runsEnd},
	} {
		t.Run(strings.ReplaceAll(story.name, " ", "_"), func(t *testing.T) { story.tell(t, s, box) })
	}
}

// destroyAll removes what the owner has.
func (s Subject) destroyAll(t *testing.T) {
	t.Helper()
	list, err := s.List(context.Background(), s.Owner)
	if err != nil {
		t.Errorf("list what is left: %v", err)
	}
	for _, box := range list {
		if err := s.Destroy(context.Background(), box.ID); err != nil {
			t.Errorf("destroy %s: %v", box.Name, err)
		}
	}
}

func (s Subject) create(t *testing.T, spec sandbox.Spec) sandbox.Sandbox {
	t.Helper()
	spec.Owner = s.Owner
	if spec.SourceID == "" {
		spec.Image = s.Image
	}
	if spec.Egress == "" {
		spec.Egress = egress.None
	}
	box, err := s.Create(t.Context(), spec)
	if err != nil {
		t.Fatalf("create %s: %v", spec.Name, err)
	}
	return box
}

// output runs a shell line that must succeed and returns what it printed.
func (s Subject) output(t *testing.T, id, line string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code, err := s.Exec(t.Context(), id, sandbox.Command{Shell: line, Stdout: &stdout, Stderr: &stderr})
	if err != nil || code != 0 {
		t.Fatalf("%s: exit code %d, %v\n%s", line, code, err, stderr.String())
	}
	return strings.TrimSpace(stdout.String())
}

func createFindDestroy(t *testing.T, s Subject) {
	made := s.create(t, sandbox.Spec{Name: "one", From: "somewhere", Labels: map[string]string{"team.x": "blue sky"}, Env: map[string]string{"A": "b c"}})
	want := sandbox.Sandbox{
		Name: "one", State: sandbox.Running, Owner: s.Owner, From: "somewhere", Egress: egress.None, Labels: map[string]string{"team.x": "blue sky"}, CreatedAt: time.Now(),
	}
	if diff := cmp.Diff(want, made, cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(time.Minute), cmpopts.IgnoreFields(sandbox.Sandbox{}, "ID", "Limits", "Lineage", "Reach")); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	if got := s.output(t, made.ID, "hostname; echo $A"); got != "one\nb c" {
		t.Errorf("inside it is %q", got)
	}
	open := s.create(t, sandbox.Spec{Name: "another", Egress: egress.Unrestricted})
	if open.Address == "" || open.Egress != egress.Unrestricted {
		t.Errorf("with a network it is %+v", open)
	}
	found, err := s.Get(t.Context(), s.Owner, "another")
	if err != nil || found.ID != open.ID || found.Address != open.Address || !found.CreatedAt.Equal(open.CreatedAt) {
		t.Errorf("found %+v, %v; made %+v", found, err, open)
	}
	list, err := s.List(t.Context(), s.Owner)
	if err != nil || len(list) != 2 || list[0].Name != "another" || list[1].Name != "one" {
		t.Errorf("list is %+v, %v", list, err)
	}
	if _, err := s.Create(t.Context(), sandbox.Spec{Name: "one", Owner: s.Owner, Image: s.Image, Egress: egress.None}); !errors.Is(err, sandbox.ErrExists) {
		t.Errorf("a second one of the name: %v", err)
	}
	if err := s.Destroy(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), s.Owner, "one"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("after its end: %v", err)
	}
	if again := s.create(t, sandbox.Spec{Name: "one"}); again.ID == made.ID {
		t.Error("a new sandbox has the old one's ID")
	}
}

func cloneOfCheckpoint(t *testing.T, s Subject) {
	base := s.create(t, sandbox.Spec{Name: "base", Env: map[string]string{"KEPT": "1", "CHANGED": "1"}, Labels: map[string]string{"a": "b"}})
	s.output(t, base.ID, "echo first >note")
	if _, err := s.CreateCheckpoint(t.Context(), base.ID, "ready", "with a note"); err != nil {
		t.Fatal(err)
	}
	s.output(t, base.ID, "echo second >note")
	clones := make([]sandbox.Sandbox, 3)
	var wg sync.WaitGroup
	for i := range clones {
		wg.Go(func() {
			var err error
			clones[i], err = s.Create(t.Context(), sandbox.Spec{
				Name: fmt.Sprintf("clone-%d", i), Owner: s.Owner, SourceID: base.ID, SourceLabel: "ready", From: "base:ready",
				Egress: egress.None, Env: map[string]string{"CHANGED": "2"},
			})
			if err != nil {
				t.Errorf("clone %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, clone := range clones {
		if clone.ID == "" {
			continue
		}
		if clone.From != "base:ready" || len(clone.Labels) != 0 || clone.State != sandbox.Running {
			t.Errorf("a clone is %+v", clone)
		}
		if got := s.output(t, clone.ID, "hostname; cat note; echo $KEPT$CHANGED"); got != clone.Name+"\nfirst\n12" {
			t.Errorf("inside %s it is %q", clone.Name, got)
		}
		if list, err := s.Checkpoints(t.Context(), clone.ID); err != nil || len(list) != 0 {
			t.Errorf("%s has the checkpoints %v, %v", clone.Name, list, err)
		}
		s.output(t, clone.ID, "echo own >note")
	}
	if got := s.output(t, base.ID, "cat note"); got != "second" {
		t.Errorf("the clones changed their source: %q", got)
	}
	open := s.create(t, sandbox.Spec{Name: "open", SourceID: base.ID, SourceLabel: "ready", Egress: egress.Unrestricted})
	if open.Address == "" {
		t.Error("a clone with a wider egress has no address")
	}
	if _, err := s.CreateCheckpoint(t.Context(), open.ID, "open", ""); err != nil {
		t.Fatal(err)
	}
	shut := s.create(t, sandbox.Spec{Name: "shut", SourceID: open.ID, SourceLabel: "open", Egress: egress.None})
	if shut.Address != "" {
		t.Errorf("a clone without a network has the address %s", shut.Address)
	}
	// Neither end of a lineage holds the other.
	if err := s.Destroy(t.Context(), open.ID); err != nil {
		t.Errorf("destroy a source: %v", err)
	}
	if got := s.output(t, shut.ID, "cat note"); got != "first" {
		t.Errorf("after its source's end a clone has %q", got)
	}
}

func checkpointList(t *testing.T, s Subject) {
	base := s.create(t, sandbox.Spec{Name: "base"})
	if list, err := s.Checkpoints(t.Context(), base.ID); err != nil || len(list) != 0 {
		t.Errorf("a new sandbox has the checkpoints %v, %v", list, err)
	}
	for _, c := range []struct{ label, description string }{{"Zulu.1", "the first, with \"quotes\""}, {"alpha", ""}, {"m_2", "third"}} {
		made, err := s.CreateCheckpoint(t.Context(), base.ID, c.label, c.description)
		if err != nil || made.Label != c.label || made.Description != c.description || time.Since(made.CreatedAt).Abs() > time.Minute {
			t.Errorf("made %+v, %v", made, err)
		}
	}
	if _, err := s.CreateCheckpoint(t.Context(), base.ID, "alpha", "again"); !errors.Is(err, sandbox.ErrExists) {
		t.Errorf("a label twice: %v", err)
	}
	list, err := s.Checkpoints(t.Context(), base.ID)
	want := []sandbox.Checkpoint{{Label: "Zulu.1", Description: "the first, with \"quotes\""}, {Label: "alpha"}, {Label: "m_2", Description: "third"}}
	if diff := cmp.Diff(want, list, cmpopts.IgnoreFields(sandbox.Checkpoint{}, "CreatedAt", "Size")); err != nil || diff != "" {
		t.Errorf("%v, the list (-want +got):\n%s", err, diff)
	}
}

func oneNameAtOnce(t *testing.T, s Subject) {
	const n = 4
	errs := make([]error, n)
	boxes := make([]sandbox.Sandbox, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			boxes[i], errs[i] = s.Create(t.Context(), sandbox.Spec{Name: "wanted", Owner: s.Owner, Image: s.Image, Egress: egress.None})
		})
	}
	wg.Wait()
	winner := slices.Index(errs, nil)
	for i, err := range errs {
		if i != winner && !errors.Is(err, sandbox.ErrExists) {
			t.Errorf("creation %d: %v, want ErrExists", i, err)
		}
	}
	list, err := s.List(t.Context(), s.Owner)
	if err != nil || winner < 0 || len(list) != 1 || list[0].ID != boxes[winner].ID || list[0].State != sandbox.Running {
		t.Errorf("there are %+v, %v; the winner is %d", list, err, winner)
	}
}

func createCancelled(t *testing.T, s Subject) {
	for _, after := range []time.Duration{0, time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		box, err := s.Create(ctx, sandbox.Spec{Name: "given-up", Owner: s.Owner, Image: s.Image, Egress: egress.None})
		cancel()
		if err == nil {
			if err := s.Destroy(t.Context(), box.ID); err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up after %s: %v", after, err)
		}
		if list, err := s.List(t.Context(), s.Owner); err != nil || len(list) != 0 {
			t.Fatalf("given up after %s it leaves %+v, %v", after, list, err)
		}
	}
}

func owners(t *testing.T, s Subject) {
	mine := s.create(t, sandbox.Spec{Name: "same"})
	other := s
	other.Owner += "-other"
	t.Cleanup(func() { other.destroyAll(t) })
	theirs := other.create(t, sandbox.Spec{Name: "same"})
	if theirs.ID == mine.ID {
		t.Error("two owners share a sandbox")
	}
	for _, who := range []Subject{s, other} {
		list, err := who.List(t.Context(), who.Owner)
		if err != nil || len(list) != 1 || list[0].Owner != who.Owner {
			t.Errorf("%s sees %+v, %v", who.Owner, list, err)
		}
	}
}

func notFound(t *testing.T, s Subject) {
	base := s.create(t, sandbox.Spec{Name: "base"})
	_, err := s.Get(t.Context(), s.Owner, "absent")
	_, execErr := s.Exec(t.Context(), "pixels-absent", sandbox.Command{Argv: []string{"true"}})
	_, checkpointErr := s.CreateCheckpoint(t.Context(), "pixels-absent", "x", "")
	_, listErr := s.Checkpoints(t.Context(), "pixels-absent")
	_, imageErr := s.Create(t.Context(), sandbox.Spec{Name: "a", Owner: s.Owner, Image: "absent/image", Egress: egress.None})
	_, labelErr := s.Create(t.Context(), sandbox.Spec{Name: "b", Owner: s.Owner, SourceID: base.ID, SourceLabel: "absent", Egress: egress.None})
	_, sourceErr := s.Create(t.Context(), sandbox.Spec{Name: "c", Owner: s.Owner, SourceID: "pixels-absent", SourceLabel: "x", Egress: egress.None})
	for what, err := range map[string]error{
		"get": err, "exec": execErr, "checkpoint": checkpointErr, "list of checkpoints": listErr, "image": imageErr,
		"label of the source": labelErr, "source": sourceErr, "destroy": s.Destroy(t.Context(), "pixels-absent"),
	} {
		if !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", what, err)
		}
	}
	if list, err := s.List(t.Context(), s.Owner); err != nil || len(list) != 1 {
		t.Errorf("failed creations left %+v, %v", list, err)
	}
}
