package incus

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/internal/testenv"
	"pixels/sandbox"
)

// Restores follow each other while servers retire what earlier ones replaced: one sandbox is there all the time, and in
// the end only it and the instance that holds its checkpoint.
func TestRestoresInARowAndRetirementsAtOnce(t *testing.T) {
	t.Parallel()
	b, other := realBackend(t), realBackend(t)
	box := boxOf(t, b, sandbox.Spec{Name: "row", Egress: egress.None})
	if _, err := b.CreateCheckpoint(t.Context(), box.ID, "ready", ""); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := other.sweep(t.Context(), box.Owner, sandbox.SweepRules{}); err != nil {
				t.Errorf("sweep: %v", err)
			}
			list, err := other.List(t.Context(), box.Owner)
			if err != nil || len(list) != 1 {
				t.Errorf("there are %+v %v", list, err)
			}
		}
	})
	id := box.ID
	for range testenv.Rounds(5, 50) {
		got, err := b.Restore(t.Context(), id, "ready")
		if err != nil {
			t.Fatal(err)
		}
		id = got.ID
	}
	close(done)
	sweeping.Wait()
	b.background.Wait()
	if _, err := b.sweep(t.Context(), box.Owner, sandbox.SweepRules{}); err != nil {
		t.Error(err)
	}
	var left []string
	for _, i := range ofOwner(t, b, box.Owner) {
		left = append(left, i.Name)
	}
	want := []string{box.ID, id}
	slices.Sort(left)
	slices.Sort(want)
	if !slices.Equal(left, want) {
		t.Errorf("left are %v, not %v", left, want)
	}
	if list, err := b.Checkpoints(t.Context(), id); err != nil || len(list) != 1 {
		t.Errorf("its checkpoints: %+v %v", list, err)
	}
	if _, err := b.Restore(t.Context(), box.ID, "ready"); err == nil {
		t.Error("what was replaced long ago was restored")
	}
	if err := b.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	b.background.Wait()
	if left := ofOwner(t, b, box.Owner); len(left) != 0 {
		t.Errorf("destroyed, it left %v", left)
	}
}

// goingServer answers as an Incus on which the instances of a line are removed, the oldest first, between two questions.
type goingServer struct {
	client.InstanceServer
	line  []api.Instance
	gone  bool
	asked []string
}

func (s *goingServer) GetInstance(id string) (*api.Instance, string, error) {
	s.asked = append(s.asked, id)
	defer func() { s.gone = true }()
	for _, i := range s.line {
		if i.Name == id && !s.gone {
			return &i, "", nil
		}
	}
	return nil, "", api.StatusErrorf(http.StatusNotFound, "Instance not found")
}

func TestWhatWasReplacedIsNotSeenWhileASandboxGoes(t *testing.T) {
	t.Parallel()
	config := func(turn int) map[string]string {
		c := map[string]string{ownerKey: "me", nameKey: "box", "volatile.last_state.power": "RUNNING"}
		if turn > 0 {
			c[firstKey], c[turnKey] = "b0", fmt.Sprint(turn)
		}
		return c
	}
	old := api.Instance{Name: "b0", InstancePut: api.InstancePut{Config: config(0)}}
	now := api.Instance{Name: "b1", InstancePut: api.InstancePut{Config: config(1)}}
	for _, changed := range [][]string{{"b1"}, {"b0", "b1"}, {"b0"}} {
		for range 20 { // in whatever order a map gives them
			into := map[string]*known{"b0": {Instance: old}, "b1": {Instance: now}}
			ids := map[string]bool{}
			for _, id := range changed {
				ids[id] = true
			}
			s := &goingServer{line: []api.Instance{old, now}}
			if len(changed) == 1 {
				s.gone = changed[0] == "b1"
			}
			c := &cache{server: &daemon{bind: func(context.Context) client.InstanceServer { return s }}}
			if err := c.readSome(t.Context(), into, ids); err != nil {
				t.Fatal(err)
			}
			for _, i := range claimsIn(into, "me", "box") {
				if i.Name == "b0" {
					t.Fatalf("read %v, and the past is seen as the sandbox", s.asked)
				}
			}
		}
	}
}
