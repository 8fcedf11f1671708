package sandboxtest

import (
	"fmt"
	"testing"

	"pixels/policy"
)

// Policy returns the policy of a text.
func Policy(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Fixed(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// OpenTo returns the shipped policy, with a folder of the host open to copy_files.
func OpenTo(t testing.TB, folder string) *policy.Policy {
	t.Helper()
	return Policy(t, fmt.Sprintf("[files]\nhost_folders = [%q]", folder))
}
