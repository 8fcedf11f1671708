// Package incustest is for tests of other packages that need the Incus of this machine.
package incustest

import (
	"errors"
	"testing"

	"pixels/incus"
	"pixels/internal/testenv"
)

// Need returns what set-up made on the Incus of this machine. Where there is none, testenv.NoIncus ends the test.
func Need(t *testing.T) *incus.Provisioner {
	t.Helper()
	testenv.NeedsIncus(t)
	p, err := incus.OpenProvisioner(t.Context(), incus.Config{})
	if err == nil {
		var image *incus.ProvisionImage
		if image, err = p.Image(t.Context(), p.Config().Image); err == nil && image == nil {
			err = errors.New("there is no base image")
		}
	}
	if err != nil {
		testenv.NoIncus(t, err)
	}
	return p
}
