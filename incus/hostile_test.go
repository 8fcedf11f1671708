package incus

import (
	"strings"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/guestbin"
	"pixels/sandbox"
)

// Root in a sandbox can put another program in the place of ours. One that says more than ours ever would costs no memory,
// and one that never ends keeps nothing from other sandboxes.
func TestAnotherProgramInTheSandbox(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.box(t, "bad", egress.Allowlist)
	l.box(t, "good", egress.Allowlist, allowedName)
	run, err := l.StartRun(t.Context(), l.boxes["bad"], sandbox.Command{Shell: "sleep 1000"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	program, err := guestbin.Path()
	if err != nil {
		t.Fatal(err)
	}
	other := `#!/bin/sh
trap "" TERM
case $1 in
unplug) while :; do sleep 1; done ;;
spawn) yes >&2 ;;
esac
exec yes
`
	l.run(t, "bad", "sh", "-c", `printf %s "$1" >"$2.new"; chmod 755 "$2.new"; mv "$2.new" "$2"`, "sh", other, program)
	l.sessions.close() // with what was started before
	start := time.Now()
	if _, err := l.LookAtRun(t.Context(), l.boxes["bad"], run, sandbox.RunQuery{Limit: 1000}); err == nil || !strings.Contains(err.Error(), "it says more than") {
		t.Errorf("looking at a run: %v", err)
	}
	if _, err := l.StartRun(t.Context(), l.boxes["bad"], sandbox.Command{Shell: "true"}, 0); err == nil || !strings.Contains(err.Error(), "it says more than") {
		t.Errorf("starting a run: %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, id := range l.boxes {
		if _, err := l.wires.ask(t.Context(), gateway.Request{Op: gateway.Drop, Sandbox: id}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := l.cache.fresh()
	if err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if err := l.mendWires(t.Context(), all); err == nil || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("a sweep: %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("a sweep took %s", took)
	}
	soon(t, "the other sandbox has its way out again", func() bool {
		l.sweepWires(t)
		return strings.Contains(l.try(t, "good", "tcp", allowedName+":80", "-host", allowedName), "200 OK")
	})
}

// After the gateway's end running sandboxes get their way out again without a sweep.
func TestTheGatewayIsStoppedAndComesBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.box(t, "one", egress.Allowlist, allowedName)
	l.background.Wait() // Incus refuses to stop what is just being changed
	op, err := l.server.UpdateInstanceState(l.wires.name, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
	if _, err = finish(t.Context(), l.server, op, err); err != nil {
		t.Fatal(err)
	}
	soon(t, "it has its way out again", func() bool {
		return strings.Contains(l.try(t, "one", "tcp", allowedName+":80", "-host", allowedName), "200 OK")
	})
}
