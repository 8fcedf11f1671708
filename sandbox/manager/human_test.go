package manager_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"pixels/egress"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// Who has the Manager alone can neither call what is a human's, nor make a caller that is one.
func TestOnlyTheDoorLetsHumansIn(t *testing.T) {
	agents, humans := reflect.TypeFor[*manager.Manager](), reflect.TypeFor[*manager.Human]()
	for _, name := range []string{"Approve", "Refuse", "Grants", "RevokeGrant", "RevokeRequest", "RevokeRules", "Everybodys", "Panic", "Records", "Present", "Prove", "Proven", "As"} {
		if _, has := agents.MethodByName(name); has {
			t.Errorf("an agent's Manager has %s", name)
		}
		if _, has := humans.MethodByName(name); !has {
			t.Errorf("a human has no %s", name)
		}
	}
	caller := reflect.TypeFor[manager.Caller]()
	var open []string
	for i := range caller.NumField() {
		if f := caller.Field(i); f.IsExported() {
			open = append(open, f.Name)
		}
	}
	if !slices.Equal(open, []string{"Owner", "Channel", "Call", "Caps", "Trial", "Woken"}) {
		t.Errorf("anybody may set %v", open)
	}

	m, door := manager.NewWithDoor(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist})
	if _, err := m.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	posing := manager.Agent("me")
	posing.Channel = "cli"
	if _, err := m.SetEgress(t.Context(), posing, "box", egress.Unrestricted); !errors.Is(err, sandbox.ErrDenied) {
		t.Errorf("who poses as a human: %v", err)
	}
	if _, err := m.SetEgress(t.Context(), door.Human("cli").As("me"), "box", egress.Unrestricted); err != nil {
		t.Errorf("a human: %v", err)
	}
}
