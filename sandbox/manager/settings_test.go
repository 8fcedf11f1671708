package manager_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"pixels/egress"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// halfWay is a backend that is cut off when it has renamed a sandbox.
type halfWay struct{ *sandboxtest.Memory }

func (h halfWay) Rename(ctx context.Context, id, name string) error {
	return errors.Join(h.Memory.Rename(ctx, id, name), errors.New("cut off"))
}

// A rename that ends half-way takes nothing back that a human took.
func TestARenameThatEndsHalfWayKeepsACut(t *testing.T) {
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	m, door := manager.NewWithDoor(halfWay{sandboxtest.NewMemory()}, manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Store: store})
	me, human := manager.Agent("me"), door.Human("cli")
	if _, err := m.Create(t.Context(), me, manager.CreateRequest{Name: "old"}); err != nil {
		t.Fatal(err)
	}
	if _, err := human.SetEgress(t.Context(), human.As("me"), "old", egress.None); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Rename(t.Context(), me, "old", "new"); err == nil {
		t.Fatal("it was not cut off")
	}
	if _, err := m.SetEgress(t.Context(), me, "new", egress.Allowlist); !errors.Is(err, sandbox.ErrDenied) {
		t.Errorf("under its new name an agent gives itself the network back: %v", err)
	}
}
