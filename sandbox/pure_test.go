package sandbox_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The model and the policy need neither a database nor a backend, nor what proves a human.
func TestTheModelAndThePolicyArePure(t *testing.T) {
	for from, never := range map[string][]string{
		".":         {"sqlite", "webauthn", "lxc/incus", "mcp-go", "pixels/policy", "pixels/incus", "pixels/tools"},
		"../policy": {"sqlite", "webauthn", "lxc/incus", "mcp-go", "pixels/policy/", "pixels/sandbox", "pixels/incus", "pixels/tools"},
	} {
		out, err := exec.Command("go", "list", "-deps", from).Output()
		if err != nil {
			t.Fatal(err)
		}
		list := strings.Fields(string(out))
		if len(list) < 20 {
			t.Errorf("%s needs %v only", from, list)
		}
		for _, needed := range list {
			for _, word := range never {
				if strings.Contains(needed, word) {
					t.Errorf("%s needs %s", from, needed)
				}
			}
		}
	}
}
