// Package testenv says what a test does where the machine lacks what the test needs.
package testenv

import (
	"os"
	"testing"
)

// Incus is the environment variable that is 1 where Incus must be there: `make test` sets it.
const Incus = "PIXELS_TEST_INCUS"

// NoIncus ends a test that found no Incus, or one that is not set up. The test is skipped, or fails where Incus must be
// there: an Incus that died must not turn the tests that come after into skips.
func NoIncus(t testing.TB, why error) {
	t.Helper()
	if os.Getenv(Incus) == "1" {
		t.Fatalf("Incus is not there as it should be: %v", why)
	}
	t.Skipf("Incus is not there, and `make test` would set it up: %v", why)
}
