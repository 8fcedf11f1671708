package incus

import (
	"context"
	"errors"
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
	all, err := l.cache.fresh(context.Background())
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
	op, err := l.server.with(context.Background()).UpdateInstanceState(l.wires.name, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
	if _, err = finish(t.Context(), l.server, op, err); err != nil {
		t.Fatal(err)
	}
	soon(t, "it has its way out again", func() bool {
		return strings.Contains(l.try(t, "one", "tcp", allowedName+":80", "-host", allowedName), "200 OK")
	})
}

// A sandbox's address is what the gateway has given it, whatever programs in the sandbox say of it.
func TestASandboxDoesNotSayWhatItsAddressIs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	made := l.box(t, "liar", egress.Allowlist)
	if made.Address == "" || made.Address != l.addressOf(t, "liar") {
		t.Fatalf("its address is %q, and inside %q", made.Address, l.addressOf(t, "liar"))
	}
	lie := `for at in /usr/bin/ip /sbin/ip /bin/ip; do [ -e $at ] && rm -f $at && printf '#!/bin/sh\necho "2: eth0 inet 203.0.113.99/24 scope global eth0"\n' >$at && chmod 755 $at; done
mkdir -p /run/pixels; printf '203.0.113.99\033[31m liar\n%0.s' 1 2 3 >/run/pixels/ready
attempt claim 203.0.113.99/24 || true`
	l.run(t, "liar", "sh", "-c", lie)
	if err := l.SetState(t.Context(), made.ID, sandbox.Stopped); err != nil {
		t.Fatal(err)
	}
	if now, err := l.Get(t.Context(), made.Owner, "liar"); err != nil || now.Address != "" {
		t.Errorf("stopped it has the address %q, %v", now.Address, err)
	}
	if err := l.SetState(t.Context(), made.ID, sandbox.Running); err != nil {
		t.Fatal(err)
	}
	l.run(t, "liar", "sh", "-c", lie)
	wire, err := l.wires.ask(t.Context(), gateway.Request{Op: gateway.Status, Sandbox: made.ID})
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := OpenBackend(l.settings) // which has heard nothing yet
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	for _, b := range []*Backend{l.Backend, fresh} {
		now, err := b.Get(t.Context(), made.Owner, "liar")
		if err != nil || now.Address != wire.Wire.Address.String() {
			t.Errorf("its address is %q, %v; the gateway has given it %s", now.Address, err, wire.Wire.Address)
		}
		list, err := b.List(t.Context(), made.Owner)
		if err != nil || len(list) != 1 || list[0].Address != wire.Wire.Address.String() {
			t.Errorf("it is listed as %+v, %v", list, err)
		}
	}
}

// What a sandbox puts in the place of files that we read costs an error at most.
func TestFilesThatAreNotWhatTheyAreTakenFor(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "odd")
	sh(t, b, made.ID, "mv /etc/passwd /etc/kept; mkdir /etc/passwd")
	if _, err := b.Exec(t.Context(), made.ID, sandbox.Command{Shell: "true", User: "games"}); !errors.Is(err, sandbox.ErrNotFound) || !strings.Contains(err.Error(), "/etc/passwd") {
		t.Errorf("with a folder for /etc/passwd: %v", err)
	}
	sh(t, b, made.ID, "rmdir /etc/passwd; head -c 20000000 /dev/zero | tr '\\0' x >/etc/passwd")
	if _, err := b.Exec(t.Context(), made.ID, sandbox.Command{Shell: "true", User: "games"}); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("with a long /etc/passwd: %v", err)
	}
	sh(t, b, made.ID, "mv -f /etc/kept /etc/passwd; mkdir /root/many; cd /root/many; seq -f '%0240.0f' 30000 | xargs touch; mkdir /root/few; touch /root/few/one")
	files, err := b.OpenFiles(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if list, err := files.ReadDir("/root/few"); err != nil || len(list) != 1 {
		t.Errorf("a folder with a file: %v, %v", list, err)
	}
	if list, err := files.ReadDir("/root/many"); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("a folder with very many files: %d, %v", len(list), err)
	}
}
