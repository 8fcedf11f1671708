package incus

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/sandbox"
)

// flooder makes a sandbox that tries to get packets out from the first moment of each of its starts, and a checkpoint of
// it.
func (l *lab) flooder(t *testing.T, name string) sandbox.Sandbox {
	t.Helper()
	made := l.box(t, name, egress.Allowlist, allowedName)
	l.run(t, name, "sh", "-c", `set -e
real=$(readlink -f /sbin/init); rm /sbin/init
printf '#!/bin/sh\n/usr/local/bin/attempt flood `+site+` >/dev/null 2>&1 &\nexec %s init\n' "$real" >/sbin/init; chmod 755 /sbin/init`)
	if _, err := l.CreateCheckpoint(t.Context(), made.ID, "ready", ""); err != nil {
		t.Fatal(err)
	}
	return made
}

// restart stops a sandbox and starts it.
func (l *lab) restart(t *testing.T, box string) {
	t.Helper()
	for _, state := range []sandbox.State{sandbox.Stopped, sandbox.Running} {
		if err := l.SetState(t.Context(), l.boxes[box], state); err != nil {
			t.Fatal(err)
		}
	}
}

var lifeWays = []way{
	{"boot-race", gateway.ProtectRedirects, func(t *testing.T, l *lab) string {
		l.flooder(t, "early")
		defer l.destroy(t, "early")
		l.packets.Seen()
		l.restart(t, "early")
		if n := l.run(t, "early", "pgrep", "-c", "attempt"); strings.TrimSpace(n) != "1" {
			t.Errorf("%s floods run", n)
		}
		return l.arrived()
	}},
	{"clone-restore", gateway.ProtectRedirects, func(t *testing.T, l *lab) string {
		source := l.flooder(t, "source")
		defer l.destroy(t, "source")
		l.packets.Seen()
		clone := boxOf(t, l.Backend, sandbox.Spec{Name: "clone", SourceID: source.ID, SourceLabel: "ready", Egress: egress.Allowlist, Rules: grantsOf(t, deniedName)})
		l.boxes["clone"] = clone.ID
		defer l.destroy(t, "clone")
		if clone.Address == source.Address || clone.Address == "" {
			t.Errorf("the clone has the address %s of its source", clone.Address)
		}
		for box, own := range map[string]string{"source": allowedName, "clone": deniedName} { // its own policy, and not the other's
			for _, name := range []string{allowedName, deniedName} {
				if l.weakened != "" {
					break
				}
				said := l.try(t, box, "tcp", name+":443", "-sni", name, "-host", name)
				if strings.Contains(said, "you asked") != (name == own) {
					t.Errorf("%s to %s: %s", box, name, said)
				}
			}
		}
		through := l.arrived(":443 tcp", ":53 udp")
		restored, err := l.Restore(t.Context(), source.ID, "ready")
		if err != nil {
			t.Fatal(err)
		}
		l.boxes["source"] = restored.ID
		l.restart(t, "clone")
		time.Sleep(300 * time.Millisecond)
		if l.weakened != "" {
		} else if said := l.try(t, "source", "tcp", allowedName+":443", "-sni", allowedName, "-host", allowedName); !strings.Contains(said, "you asked") {
			t.Errorf("restored: %s", said)
		}
		return through + l.arrived(":443 tcp", ":53 udp")
	}},
	{"wire-leftover", gateway.ProtectWireRenewal, func(t *testing.T, l *lab) string {
		dirty := l.box(t, "dirty", egress.Allowlist)
		wire := wireOf(t, l.Backend, dirty.ID)
		// A name that the host has already is one more thing to try: with it Incus can't bring the card back.
		const spoil = `ip link set eth0 address 02:00:00:00:00:99 mtu 1300 txqueuelen 7; tc qdisc add dev eth0 root pfifo limit 3; ip link property add dev eth0 altname `
		altname := "leftover" + strconv.Itoa(wire.Number) + string(l.weakened[:min(len(l.weakened), 1)])
		l.run(t, "dirty", "sh", "-c", spoil+altname)
		l.box(t, "renamed", egress.Allowlist)
		l.run(t, "renamed", "sh", "-c", spoil+"lo; ip link set eth0 down; ip link set eth0 name spoilt0; ip link set spoilt0 up; true")
		l.destroy(t, "renamed")
		l.destroy(t, "dirty")
		if links, err := netlink.LinkList(); err == nil {
			for _, link := range links {
				a := link.Attrs()
				if a.Name == "spoilt0" || a.HardwareAddr.String() == "02:00:00:00:00:99" && a.MTU != 1300 {
					t.Errorf("the host has %s", a.Name)
				}
			}
		}
		l.box(t, "next", egress.Allowlist)
		defer l.destroy(t, "next")
		seen := l.run(t, "next", "ip", "-d", "link", "show", "eth0")
		if strings.Contains(seen, altname) || strings.Contains(seen, "mtu 1300") || strings.Contains(seen, "00:00:99") || strings.Contains(seen, "qlen 7") || strings.Contains(seen, "pfifo") {
			return seen
		}
		reply, err := l.wires.ask(t.Context(), gateway.Request{Op: gateway.Wires})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range reply.Wires {
			link, err := netlink.LinkByName(l.wires.hostEnd(w.Number))
			if w.Number == wire.Number && w.State == gateway.Free && err == nil && link.Attrs().TxQLen == 7 {
				return "the wire is free again, with what was done to it"
			}
		}
		return ""
	}},
	{"wire-delete", anotherWire, func(t *testing.T, l *lab) string {
		box := l.box(t, "cut-off", egress.Allowlist, allowedName)
		defer l.destroy(t, "cut-off")
		l.run(t, "cut-off", "ip", "link", "del", "eth0")
		if said := l.try(t, "one", "tcp", allowedName+":443", "-sni", allowedName, "-host", allowedName); !strings.Contains(said, "you asked") {
			t.Errorf("another one: %s", said)
		}
		if err := l.stop(t.Context(), box.ID, false); err != nil {
			t.Fatal(err)
		}
		if l.weakened == anotherWire {
			if err := l.act(t.Context(), box.ID, "start"); err != nil {
				return err.Error()
			}
			return ""
		}
		if err := l.SetState(t.Context(), box.ID, sandbox.Running); err != nil {
			t.Fatal(err)
		}
		if said := l.try(t, "cut-off", "tcp", allowedName+":443", "-sni", allowedName, "-host", allowedName); !strings.Contains(said, "you asked") {
			return "after a restart: " + said
		}
		return ""
	}},
	{"guest-api", guestAPI, func(t *testing.T, l *lab) string {
		box := l.box(t, "guest", egress.None)
		defer l.destroy(t, "guest")
		if l.weakened == guestAPI {
			err := l.change(t.Context(), box.ID, func(config map[string]string) error {
				config["security.guestapi"] = "true"
				return nil
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			l.restart(t, "guest")
		}
		if said := l.run(t, "guest", "sh", "-c", "ls -d /dev/incus /dev/incus/sock 2>&1; grep -c incus /proc/net/unix; true"); strings.Contains(said, "/dev/incus/sock\n") && !strings.Contains(said, "cannot access '/dev/incus/sock'") {
			return said
		}
		return ""
	}},
	{"limits", resourceLimits, func(t *testing.T, l *lab) string {
		limits := sandbox.Limits{Memory: 256 << 20, Disk: 1 << 30, Processes: 200}
		if l.weakened == resourceLimits {
			limits.Processes = 2000
		}
		greedy := boxOf(t, l.Backend, sandbox.Spec{Name: "greedy", Egress: egress.None, Limits: limits})
		l.boxes["greedy"] = greedy.ID
		defer l.destroy(t, "greedy")
		l.equip(t, greedy.ID)
		forked := l.try(t, "greedy", "exhaust", "processes", "500")
		for _, what := range []string{"inotify", "keys", "memory", "disk"} {
			l.try(t, "greedy", "exhaust", what, "100000")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		other, err := l.Create(ctx, sandbox.Spec{Name: "modest", Owner: greedy.Owner, Image: l.config.Image, Egress: egress.Allowlist, ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			return "another one can't be made: " + err.Error()
		}
		l.boxes["modest"] = other.ID
		defer l.destroy(t, "modest")
		l.equip(t, other.ID)
		if said := l.try(t, "modest", "exhaust", "inotify", "10"); !strings.Contains(said, "10 of 10") {
			return "another one has no inotify: " + said
		}
		if strings.Contains(forked, "500 of 500") {
			return "500 processes run: " + forked
		}
		return ""
	}},
}
