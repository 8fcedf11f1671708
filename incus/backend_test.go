package incus

import (
	"fmt"
	"os"
	"testing"

	"pixels/sandbox/sandboxtest"
)

// realBackend returns a Backend on the Incus of this machine. `make test` sets one up; elsewhere the test is skipped.
func realBackend(t *testing.T) *Backend {
	t.Helper()
	p, err := OpenProvisioner(t.Context(), Config{})
	if err != nil {
		t.Skipf("no Incus here: %v", err)
	}
	if image, err := p.Image(); err != nil || image == nil {
		t.Skipf("Incus is not set up here: %v", err)
	}
	b, err := OpenBackend(Config{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIncus(t *testing.T) {
	b := realBackend(t)
	sandboxtest.Run(t, sandboxtest.Subject{Backend: b, Image: b.config.Image, Owner: fmt.Sprintf("test-%d", os.Getpid())})
}
