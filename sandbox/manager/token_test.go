package manager_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// withTokens returns a manager with a ledger, and the human of it.
func withTokens(t *testing.T) (*manager.Manager, *manager.Human) {
	t.Helper()
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	m, door := manager.NewWithDoor(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Store: store})
	return m, door.Human("test")
}

// holder is who calls by a token that is made for it.
func holder(t *testing.T, h *manager.Human, name string, limits policy.Limits) manager.Caller {
	t.Helper()
	if _, err := h.CreateToken(t.Context(), ledger.Token{Name: name, Limits: limits}); err != nil {
		t.Fatal(err)
	}
	caps, err := h.CapsOf(name)
	if err != nil {
		t.Fatal(err)
	}
	c := manager.Agent(name)
	c.Caps = caps
	return c
}

func create(t *testing.T, m *manager.Manager, c manager.Caller, name string) error {
	t.Helper()
	_, err := m.Create(t.Context(), c, manager.CreateRequest{Name: name})
	return err
}

func listed(t *testing.T, m *manager.Manager, c manager.Caller) (names []string) {
	t.Helper()
	page, err := m.List(t.Context(), c, manager.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range page.Sandboxes {
		names = append(names, s.Name)
	}
	return names
}

// The holders of a tree of tokens share the quota of its top, and each sees what is below.
func TestATreeOfTokensSharesItsQuota(t *testing.T) {
	m, h := withTokens(t)
	three, two := int64(3), int64(2)
	top := holder(t, h, "orch", policy.Limits{Sandboxes: &three})
	a, b := holder(t, h, "orch/a", policy.Limits{Sandboxes: &two}), holder(t, h, "orch/b", policy.Limits{})
	for _, step := range []struct {
		who  manager.Caller
		name string
		want error
	}{{top, "base", nil}, {a, "one", nil}, {b, "one", nil}, {a, "two", sandbox.ErrDenied}, {b, "two", sandbox.ErrDenied}, {top, "two", sandbox.ErrDenied}} {
		if err := create(t, m, step.who, step.name); !errors.Is(err, step.want) {
			t.Errorf("%s makes %s: %v", step.who.Owner, step.name, err)
		}
	}
	for _, step := range []struct {
		who  manager.Caller
		want []string
	}{{top, []string{"base", "orch/a/one", "orch/b/one"}}, {a, []string{"one"}}, {b, []string{"one"}}} {
		if got := listed(t, m, step.who); !slices.Equal(got, step.want) {
			t.Errorf("%s sees %q", step.who.Owner, got)
		}
	}
	for who, name := range map[*manager.Caller]string{&a: "orch/base", &b: "orch/a/one"} {
		if _, err := m.Checkpoints(t.Context(), *who, name); !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("%s has %s: %v", who.Owner, name, err)
		}
	}
	if d, err := m.Destroy(t.Context(), top, []string{"orch/a/one"}); err != nil || len(d.Gone) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if err := create(t, m, a, "again"); err != nil {
		t.Errorf("what another one gave back can't be had: %v", err)
	}
}

func TestRevokedTokens(t *testing.T) {
	m, h := withTokens(t)
	top, child := holder(t, h, "orch", policy.Limits{}), holder(t, h, "orch/a", policy.Limits{})
	for who, name := range map[*manager.Caller]string{&top: "base", &child: "box"} {
		if err := create(t, m, *who, name); err != nil {
			t.Fatal(err)
		}
	}
	r, err := h.RevokeToken(t.Context(), "orch/a", false)
	if err != nil || !slices.Equal(r.Tokens, []string{"orch/a"}) || !slices.Equal(r.Left, []string{"orch/a/box"}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := h.CapsOf("orch/a"); !errors.Is(err, ledger.ErrToken) {
		t.Errorf("it goes on: %v", err)
	}
	if got := listed(t, m, top); !slices.Equal(got, []string{"base", "orch/a/box"}) {
		t.Errorf("the token above has %q", got)
	}
	if _, err := h.CreateToken(t.Context(), ledger.Token{Name: "orch/a"}); !errors.Is(err, fault.Exists) {
		t.Errorf("a name is given again of which a sandbox is left: %v", err)
	}
	if r, err = h.RevokeToken(t.Context(), "orch", true); err != nil || !slices.Equal(r.Tokens, []string{"orch"}) || !slices.Equal(r.Destroyed, []string{"orch/a/box", "orch/base"}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := h.CreateToken(t.Context(), ledger.Token{Name: "orch"}); err != nil {
		t.Errorf("a name of which nothing is left: %v", err)
	}
	if _, err := h.CreateToken(t.Context(), ledger.Token{Name: "root"}); !errors.Is(err, fault.Exists) {
		t.Errorf("a token has a user's name: %v", err)
	}
	if _, err := h.RevokeToken(t.Context(), "nobody", false); !errors.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	use, err := h.Tokens(t.Context())
	if err != nil || len(use) != 2 || !use[0].Live || use[1].Live {
		t.Errorf("%+v, %v", use, err)
	}
}
