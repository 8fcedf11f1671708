// Package testenv says what a test does where the machine lacks what the test needs, and how long it goes on.
package testenv

import (
	"os"
	"testing"
)

// The environment variables that the Makefile sets.
const (
	// Incus is 1 where Incus must be there, and 0 where tests leave it alone.
	Incus = "PIXELS_TEST_INCUS"
	// Long is 1 where tests that try something at many points try it at more of them.
	Long = "PIXELS_TEST_LONG"
)

// WithoutIncus tells whether tests are to leave Incus alone.
func WithoutIncus() bool { return os.Getenv(Incus) == "0" }

// NeedsIncus skips a test where Incus is to be left alone.
func NeedsIncus(t testing.TB) {
	t.Helper()
	if WithoutIncus() {
		t.Skipf("it needs Incus, and %s=0", Incus)
	}
}

// NoIncus ends a test that found no Incus, or one that is not set up. The test is skipped, or fails where Incus must be
// there: an Incus that died must not turn the tests that come after into skips.
func NoIncus(t testing.TB, why error) {
	t.Helper()
	if os.Getenv(Incus) == "1" {
		t.Fatalf("Incus is not there as it should be: %v", why)
	}
	t.Skipf("Incus is not there, and `make test` would set it up: %v", why)
}

// Rounds is how often a test tries something: more often in `make test-long`.
func Rounds(usual, long int) int {
	if os.Getenv(Long) == "1" {
		return long
	}
	return usual
}
