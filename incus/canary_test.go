package incus

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/view"
	"pixels/sandbox"
)

func TestTheCanaryFindsWhatGetsOut(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if found, err := l.canary(t.Context()); err != nil || len(found.Ways) > 0 {
		t.Fatalf("on wires it finds %+v, %v", found, err)
	}
	l.bridged = true
	found, err := l.canary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(found.Ways, "\n")
	for _, want := range []string{"TCP reaches " + l.host() + ":", "UDP reaches the host", "a frame to ", l.host() + " answers ping", "another sandbox, ", "the DNS at " + l.host() + ":53 answers by itself"} {
		if !strings.Contains(all, want) {
			t.Errorf("on a bridge it does not find %q among:\n%s", want, all)
		}
	}
	l.bridged = false
	spec := sandbox.Spec{Name: "held", Owner: "test-canary", Image: l.config.Image, Egress: egress.Agent, ExpiresAt: time.Now().Add(time.Hour)}
	if _, err := l.Create(t.Context(), spec); !errors.Is(err, sandbox.ErrUnsupported) || !strings.Contains(err.Error(), "answers ping") || !strings.Contains(view.Error(err, view.Agent), "doctor") {
		t.Errorf("a restricted sandbox after that: %v", err)
	}
	open := l.box(t, "open", egress.Unrestricted)
	if _, err := l.SetEgress(t.Context(), open.ID, func(egress.Mode, []egress.Grant) (egress.Mode, []egress.Grant, error) {
		return egress.Allowlist, nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	if e, err := l.Egress(t.Context(), open.ID); err != nil || e.Enforced || !strings.Contains(e.Why, "answers ping") {
		t.Errorf("its egress shows as %+v, %v", e, err)
	}
	if found, err := l.canary(t.Context()); err != nil || len(found.Ways) > 0 {
		t.Fatalf("on wires again: %+v, %v", found, err)
	}
	l.box(t, "held", egress.Agent)
}

// What the gateway can't hold by itself, or not by a rule of the moment, the canary tries, too.
func TestTheCanaryTriesTheEdges(t *testing.T) {
	t.Parallel()
	l := newRoutedLab(t)
	rules := HostRules{Bridge: l.settings.Network, Address: netip.MustParseAddr(l.host())}
	open := l.box(t, "open", egress.Unrestricted)
	gap := func() string {
		t.Helper()
		e, err := l.Egress(t.Context(), open.ID)
		if err != nil {
			t.Fatal(err)
		}
		return e.Gap
	}
	finds := func(when string, gaps, ways []string) {
		t.Helper()
		found, err := l.canary(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		for what, pair := range map[string][2][]string{"gaps": {gaps, found.Gaps}, "ways": {ways, found.Ways}} {
			all := strings.Join(pair[1], "\n")
			for _, want := range pair[0] {
				if !strings.Contains(all, want) {
					t.Errorf("%s it finds no %q among the %s:\n%s", when, want, what, all)
				}
			}
			if len(pair[0]) == 0 && all != "" {
				t.Errorf("%s it finds the %s:\n%s", when, what, all)
			}
		}
		if len(found.Untried) > 0 && l.weakened == "" {
			t.Errorf("%s it could not try %q", when, found.Untried)
		}
		if said := gap(); (said != "") != (len(gaps) > 0) || len(gaps) > 0 && !strings.Contains(said, gaps[0]) {
			t.Errorf("%s the egress says that this is missing: %q", when, said)
		}
	}
	const forwards = "what this machine forwards from its other networks reaches sandboxes"
	finds("without rules", []string{forwards, "the host answers at ", l.host()}, nil)
	if _, err := rules.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	finds("with rules", nil, nil)
	err := edit(t.Context(), l.server, l.p.config.Gateway(), func(put *api.InstancePut) error {
		put.Config[edgeRunKey] = "an earlier one"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	soon(t, "what was found before the machine started counts for nothing", func() bool { return strings.Contains(gap(), "nobody has looked since the host was started") })
	if err := EnsureHostRules(t.Context(), l.settings); err != nil {
		t.Fatal(err)
	}
	soon(t, "a server that is root puts the rules in place, and says so", func() bool { return gap() == "" })
	const half = "this machine may forget the gateway's hardware address"
	link, err := netlink.LinkByName(l.settings.Network)
	if err == nil {
		err = netlink.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_INET, IP: net.ParseIP(l.gatewayAddress()).To4()})
	}
	if err != nil {
		t.Fatal(err)
	}
	finds("without an entry for the gateway", []string{half}, nil)
	if err := l.p.keepNeighbour(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.config.Image += "-systemd"
	finds("with systemd", nil, nil)
	l.config.Image = strings.TrimSuffix(l.config.Image, "-systemd")
	l.weaken(t, gateway.ProtectChanges)
	finds("with a gateway that cuts nothing", nil, []string{"hears a connection from before the mode was narrowed", "is heard over a connection from before the mode was narrowed"})
	left, err := nft(t.Context(), "", "list", "tables", "ip")
	if err != nil || strings.Contains(left, leftTables(rules)) {
		t.Errorf("it leaves %s, %v", left, err)
	}
}

// What could not be made whole leaves nothing, and what a process that is gone has left is removed.
func TestElsewhereLeavesNothing(t *testing.T) {
	t.Parallel()
	realBackend(t)
	rules := HostRules{Bridge: "pxnone" + strconv.Itoa(os.Getpid())}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	left := leftTables(rules) + strconv.Itoa(gone.Process.Pid) + "_00"
	if _, err := nft(t.Context(), "add table ip "+left+"\n", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	tables := func() string {
		t.Helper()
		all, err := nft(t.Context(), "", "list", "tables", "ip")
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	e, err := openElsewhere(t.Context(), rules)
	if err != nil {
		t.Fatal(err)
	}
	if all := tables(); strings.Contains(all, left) || !strings.Contains(all, e.table) {
		t.Errorf("beside %s there are %s", e.table, all)
	}
	if err := e.close(t.Context()); err != nil {
		t.Error(err)
	}
	if all := tables(); strings.Contains(all, leftTables(rules)) {
		t.Errorf("it leaves %s", all)
	}
	if _, err := netlink.LinkByIndex(e.cable.Attrs().Index); err == nil {
		t.Error("it leaves its cable")
	}
	rules.Bridge = `no"bridge`
	if e, err := openElsewhere(t.Context(), rules); err == nil || e != nil {
		t.Errorf("beside no bridge there is %+v", e)
	}
}
