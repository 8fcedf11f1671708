package incus

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/egress"
	"pixels/sandbox"
)

// many is how many sandboxes one gateway is to serve at once.
const many = 200

func TestManySandboxesOnOneGateway(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.wires.stock = usualStock
	source := l.box(t, "source", egress.Allowlist, allowedName)
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
