package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"pixels/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A policy that can't be read ends the opening, with the file named, and leaves nothing open.
func TestABadPolicyOpensNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.toml")
	if err := os.WriteFile(path, []byte("nonsense = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.Incus.Socket = filepath.Join(t.TempDir(), "nobody")
	a, err := Open(c, path, func(err error) { t.Error(err) })
	if err == nil {
		a.Close()
	}
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}
