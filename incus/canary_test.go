package incus

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pixels/egress"
	"pixels/sandbox"
)

func TestTheCanaryFindsWhatGetsOut(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if ways, err := l.canary(t.Context()); err != nil || len(ways) > 0 {
		t.Fatalf("on wires it finds %q, %v", ways, err)
	}
	l.bridged = true
	ways, err := l.canary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(ways, "\n")
	for _, want := range []string{"TCP reaches " + l.host() + ":", "UDP reaches the host", "a frame to ", l.host() + " answers ping", "another sandbox, ", "the DNS at " + l.host() + ":53 answers by itself"} {
		if !strings.Contains(all, want) {
			t.Errorf("on a bridge it does not find %q among:\n%s", want, all)
		}
	}
	l.bridged = false
	spec := sandbox.Spec{Name: "held", Owner: "test-canary", Image: l.config.Image, Egress: egress.Agent, ExpiresAt: time.Now().Add(time.Hour)}
	if _, err := l.Create(t.Context(), spec); !errors.Is(err, sandbox.ErrUnsupported) || !strings.Contains(err.Error(), "answers ping") || !strings.Contains(err.Error(), "doctor") {
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
	if ways, err := l.canary(t.Context()); err != nil || len(ways) > 0 {
		t.Fatalf("on wires again: %q, %v", ways, err)
	}
	l.box(t, "held", egress.Agent)
}
