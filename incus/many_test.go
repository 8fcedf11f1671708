package incus

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/egress"
	"pixels/internal/testenv"
	"pixels/sandbox"
)

// manyWires is how many sandboxes one gateway is to serve at once. Each costs the machine most of a second, so that as many
// are made in `make test-long` alone; package gateway has a test with as many in namespaces.
const manyWires = 200

func TestManySandboxesOnOneGateway(t *testing.T) {
	t.Parallel()
	many := testenv.Rounds(60, manyWires)
	l := newLab(t)
	l.spoilt = true // no other test wants so many wires
	source := l.box(t, "source", egress.Allowlist, allowedName)
	if err := l.wires.tend(t.Context(), manyWires, manyWires); err != nil {
		t.Fatal(err)
	}
	if _, err := l.CreateCheckpoint(t.Context(), source.ID, "ready", ""); err != nil {
		t.Fatal(err)
	}
	ids, addresses := make([]string, many), map[string]int{}
	each := func(do func(i int)) {
		var all sync.WaitGroup
		slots := make(chan struct{}, 4)
		for i := range many {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				do(i)
			})
		}
		all.Wait()
	}
	t.Cleanup(func() {
		each(func(i int) {
			if ids[i] == "" {
				return
			}
			if err := l.remove(context.Background(), ids[i]); err != nil {
				t.Error(err)
			}
		})
	})
	each(func(i int) {
		made, err := l.Create(t.Context(), sandbox.Spec{
			Name: fmt.Sprintf("many-%d", i), Owner: source.Owner, SourceID: source.ID, SourceLabel: "ready",
			Egress: egress.Allowlist, Rules: grantsOf(t, allowedName), ExpiresAt: time.Now().Add(time.Hour), Early: true, // as clone_sandbox does with a command
		})
		if err != nil {
			t.Error(err)
			return
		}
		ids[i] = made.ID
	})
	if t.Failed() {
		return
	}
	each(func(i int) {
		var out strings.Builder
		try := func(name string) string {
			return fmt.Sprintf("attempt tcp %s:443 -sni %s -host %s\n", name, name, name)
		}
		_, err := l.Exec(t.Context(), ids[i], sandbox.Command{Shell: try(allowedName) + try(deniedName), User: "root", Stdout: &out})
		if err != nil || !strings.Contains(out.String(), "you asked "+allowedName) || strings.Contains(out.String(), "you asked "+deniedName) || !strings.Contains(out.String(), "error: ") {
			t.Errorf("%d: %s %v", i, out.String(), err)
		}
	})
	list, err := l.List(t.Context(), source.Owner)
	if err != nil {
		t.Fatal(err)
	}
	for _, made := range list {
		if strings.HasPrefix(made.Name, "many-") && made.State == sandbox.Running {
			addresses[made.Address]++
		}
	}
	if len(addresses) != many || addresses[""] > 0 {
		t.Errorf("%d sandboxes have %d addresses", many, len(addresses))
	}
	t.Logf("the gateway holds %.1f MB", l.gatewayMemory(t))
}
