package sandboxtest_test

import (
	"testing"

	"pixels/sandbox/sandboxtest"
)

func TestMemory(t *testing.T) {
	sandboxtest.Run(t, sandboxtest.Subject{Backend: sandboxtest.NewMemory(), Image: sandboxtest.Image, Owner: "tester"})
}
