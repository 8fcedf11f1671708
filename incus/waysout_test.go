package incus

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	client "github.com/lxc/incus/v6/client"

	"pixels/egress"
	"pixels/egress/gateway"
)

// allWays are the ways of all files. Those of one file are tried in one lab, side by side with the others.
var allWays = map[string][]way{"connection": ways, "wire": ownWays, "life": lifeWays}

// Each protection is switched off by an attempt that TestWaysOut wants to succeed then.
func TestNoProtectionIsUntried(t *testing.T) {
	tried := map[gateway.Protection]bool{}
	for _, ways := range allWays {
		for _, w := range ways {
			tried[w.off] = true
		}
	}
	for _, p := range slices.Concat(gateway.Protections, []gateway.Protection{onAWire, anotherWire, guestAPI, resourceLimits}) {
		if !tried[p] {
			t.Errorf("no way out is tried without the protection %q", p)
		}
	}
}

// Every way is closed; and each is open once its protection is off, so that no test of them is empty.
func TestWaysOut(t *testing.T) {
	t.Parallel()
	for name, ways := range allWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			waysOut(t, ways)
		})
	}
}

func waysOut(t *testing.T, ways []way) {
	l := newLab(t)
	l.box(t, "one", egress.Allowlist, allowedName)
	l.box(t, "two", egress.Allowlist, allowedName)
	l.box(t, "open", egress.Unrestricted)
	for _, w := range ways {
		t.Run(w.id, func(t *testing.T) {
			l.forget()
			if through := w.try(t, l); through != "" {
				t.Errorf("got through: %s", through)
			}
		})
	}
	var offs []gateway.Protection
	for _, w := range ways {
		if !slices.Contains(offs, w.off) {
			offs = append(offs, w.off)
		}
	}
	tryOpen := func(off gateway.Protection) {
		for _, w := range ways {
			if w.off != off {
				continue
			}
			t.Run(w.id+"/without "+strings.ReplaceAll(string(off), " ", "-"), func(t *testing.T) {
				l.forget()
				if w.try(t, l) == "" {
					t.Error("nothing got through: the test is empty")
				}
			})
		}
	}
	for _, off := range offs {
		if off == onAWire {
			l.onABridge(t, func() { tryOpen(off) })
			continue
		}
		l.weaken(t, off)
		tryOpen(off)
		l.weakened = ""
	}
}

// weaken runs the gateway with a protection switched off, or with none when that is empty.
func (l *lab) weaken(t *testing.T, off gateway.Protection) {
	t.Helper()
	l.weakened = off
	content, err := weak()
	if err != nil {
		t.Fatal(err)
	}
	err = l.server.with(context.Background()).CreateInstanceFile(l.p.config.Gateway(), gateway.WeakFile, client.InstanceFileArgs{
		Content: bytes.NewReader([]byte(off)), Mode: 0o600, Type: "file", WriteMode: "overwrite",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.p.renewGateway(t.Context(), content, gateway.Version(content)); err != nil {
		t.Fatal(err)
	}
}
