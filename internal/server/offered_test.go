package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pixels/egress"
	"pixels/policy"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// The tools that are listed are those that may be called, and a client hears when the policy makes them others.
func TestToolsFollowThePolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[tools]\noff = [\"copy_files\"]\n")
	p, err := policy.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m := manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.None, Policy: p})
	c := newLiner(t, m, "alice", "{}")
	list := func(id string) string {
		c.say(t, `{"jsonrpc":"2.0","id":"`+id+`","method":"tools/list"}`)
		line, _ := c.await(t, `"id":"`+id+`"`)
		return line
	}
	if got := list("one"); strings.Contains(got, `"copy_files"`) || strings.Contains(got, `"mint_token"`) || !strings.Contains(got, `"exec"`) {
		t.Errorf("%.300s", got)
	}
	c.say(t, toolCall(4, "create_sandbox", `{"name":"box"}`, ""))
	c.await(t, `"id":4`)
	write("[tools]\noff = [\"exec\", \"write_file\"]\n")
	c.await(t, "notifications/tools/list_changed")
	if got := list("two"); !strings.Contains(got, `"copy_files"`) || strings.Contains(got, `"name":"exec"`) {
		t.Errorf("%.300s", got)
	}
	if hello, _ := c.await(t, `"id":"hello"`); !strings.Contains(hello, `"tools":{"listChanged":true}`) {
		t.Errorf("%s", hello)
	}
	// What is not listed is refused in words that help, not as an error of the protocol.
	c.say(t, toolCall(3, "exec", `{"name":"box","command":"true"}`, ""))
	if got, _ := c.await(t, `"id":3`); !strings.Contains(got, "tools.off") || !strings.Contains(got, `"isError":true`) {
		t.Errorf("%s", got)
	}
}
