package incus

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/sandbox"
)

// What the first process of a sandbox does for it.
func TestTheFirstProcess(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "init")
	if got := sh(t, b, made.ID, "readlink /proc/1/exe"); !strings.HasPrefix(got, "/usr/lib/pixels/pixels-init-") {
		t.Fatalf("the first process is %s", got)
	}
	t.Run("it reaps orphans", func(t *testing.T) {
		sh(t, b, made.ID, "for i in 1 2 3 4 5 6 7 8 9 10; do setsid -f sh -c 'sleep 0.1'; done")
		soon(t, "no dead process is left", func() bool { return sh(t, b, made.ID, "ps -eo stat,comm | grep -c -E '^Z|sleep' || true") == "0" })
	})
	t.Run("it mounts what a system has in memory", func(t *testing.T) {
		got := sh(t, b, made.ID, "for f in /run /run/lock /dev/shm; do stat -f -c '%T' $f; done; stat -c %a /tmp /dev/shm /run; touch /run/a /tmp/a")
		if got != "tmpfs\ntmpfs\ntmpfs\n1777\n1777\n755" {
			t.Errorf("it is %q", got)
		}
	})
	t.Run("a stop lets processes end by themselves", func(t *testing.T) {
		sh(t, b, made.ID, `setsid -f sh -c 'trap "sleep 0.3; echo ended >/root/ended; exit" TERM; while :; do sleep 0.1; done' >/dev/null 2>&1`)
		sh(t, b, made.ID, `setsid -f sh -c 'trap "" TERM; while :; do sleep 0.1; done' >/dev/null 2>&1; sleep 0.3`)
		start := time.Now()
		if err := b.SetState(t.Context(), made.ID, sandbox.Stopped); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > stopGrace*time.Second {
			t.Errorf("one that ignores the signal held it up for %s", took)
		}
		if err := b.SetState(t.Context(), made.ID, sandbox.Running); err != nil {
			t.Fatal(err)
		}
		if got := sh(t, b, made.ID, "cat /root/ended; hostname; ls /run/a /tmp/a 2>/dev/null || true"); got != "ended\ninit\n/tmp/a" {
			t.Errorf("after it there is %q", got)
		}
	})
	t.Run("a reboot from inside brings it back", func(t *testing.T) {
		sh(t, b, made.ID, "touch /run/before; setsid -f sh -c 'sleep 0.2; reboot' >/dev/null 2>&1")
		soon(t, "it is back", func() bool {
			code, err := b.exec(t.Context(), made.ID, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", "[ ! -e /run/before ] && [ -e /run/pixels/ready ] && [ $(hostname) = init ]"}}, nil, nil, nil)
			return err == nil && code == 0
		})
	})
	t.Run("services can be started by hand", func(t *testing.T) {
		sh(t, b, made.ID, `cat >/etc/init.d/tick <<'END'
#!/bin/sh
### BEGIN INIT INFO
# Provides: tick
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
case $1 in
start) start-stop-daemon --start --background --make-pidfile --pidfile /run/tick.pid --exec /bin/sleep -- 600 ;;
stop) start-stop-daemon --stop --pidfile /run/tick.pid ;;
status) start-stop-daemon --status --pidfile /run/tick.pid ;;
esac
END
chmod +x /etc/init.d/tick`)
		if got := sh(t, b, made.ID, "service tick start; sleep 0.2; service tick status && echo runs; service tick stop; sleep 0.2; service tick status || echo stopped"); !strings.Contains(got, "runs\n") || !strings.HasSuffix(got, "stopped") {
			t.Errorf("it is %q", got)
		}
	})
	t.Run("a card that comes later gets an address", func(t *testing.T) {
		device := func(nic map[string]string) {
			t.Helper()
			inst, etag, err := b.server.with(context.Background()).GetInstance(made.ID)
			if err != nil {
				t.Fatal(err)
			}
			put := inst.Writable()
			delete(put.Devices, "eth0")
			if nic != nil {
				put.Devices["eth0"] = nic
			}
			op, err := b.server.with(context.Background()).UpdateInstance(made.ID, put, etag)
			if _, err = finish(t.Context(), b.server, op, err); err != nil {
				t.Fatal(err)
			}
		}
		// A network of the test's own, whose host answers DHCP: to that of sandboxes this machine's own rules let no question.
		c := Config{Network: fmt.Sprintf("pxtest%d-1", os.Getpid())}
		p, err := OpenProvisioner(t.Context(), c)
		if err == nil {
			err = p.CreateNetwork(context.Background(), "10.166.248.1/24", 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := p.DeleteNetwork(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		nic := map[string]string{"type": "nic", "name": "eth0", "network": c.Network}
		for range 2 {
			device(nic)
			soon(t, "it has an address, a way out and a name server", func() bool {
				return sh(t, b, made.ID, "ip -4 -o addr show dev eth0 | grep -c inet; ip route | grep -c ^default; grep -c nameserver /etc/resolv.conf; true") == "1\n1\n1"
			})
			device(nil)
			soon(t, "it is gone", func() bool { return sh(t, b, made.ID, "ls /sys/class/net") == "lo" })
		}
	})
}
