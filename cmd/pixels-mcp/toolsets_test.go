package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pixels/internal/server"
)

// A server offers, and lets be called, what its flags leave.
func TestServeOffersWhatItsFlagsLeave(t *testing.T) {
	for flags, want := range map[string]string{
		"--read-only":                               "list_sandboxes list_checkpoints read_file list_files",
		"--toolsets exec,checkpoints":               "list_sandboxes create_checkpoint list_checkpoints restore_checkpoint delete_checkpoint exec wait",
		"--read-only --toolsets files,checkpoints":  "list_sandboxes list_checkpoints read_file list_files",
		"--read-only=false --toolsets egress,files": "list_sandboxes wait read_file write_file edit_file list_files copy_files allow_domain deny_domain egress",
	} {
		c, err := server.Start(t.Context(), self(t), append([]string{"serve", "--direct"}, strings.Fields(flags)...)...)
		if err != nil {
			t.Fatal(err)
		}
		list, err := c.Tools(t.Context())
		var names []string
		for _, tool := range list {
			names = append(names, tool.Name)
		}
		if err != nil || !slices.Equal(names, strings.Fields(want)) {
			t.Errorf("%s offers %q, %v", flags, names, err)
		}
		if err := c.Call(t.Context(), "create_sandbox", map[string]any{"name": "box"}, nil); err == nil || !strings.Contains(err.Error(), "create_sandbox is none of the calls") {
			t.Errorf("%s: a call of what is not offered: %v", flags, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if c, err := server.Start(t.Context(), self(t), "serve", "--direct", "--toolsets", "fils"); err == nil {
		_ = c.Close()
		t.Error("a set that is not there is offered")
	} else if !strings.Contains(err.Error(), "did you mean files?") {
		t.Errorf("%v", err)
	}
}

// Who asks what the policy says of a call by a token's holder hears of its caps, too.
func TestPolicyCheckKnowsTokens(t *testing.T) {
	if out, err := exec.Command(self(t), "token", "create", "capped", "--tools", "exec").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for who, want := range map[string]string{"capped": "token capped tools", "somebody": "allow"} {
		if out, err := exec.Command(self(t), "policy", "check", "--as", who, "list_sandboxes").CombinedOutput(); !strings.Contains(string(out), want) {
			t.Errorf("%s: %s, %v", who, out, err)
		}
	}
	if out, err := exec.Command(self(t), "token", "revoke", "capped").CombinedOutput(); err != nil && !strings.Contains(string(out), "ended capped") {
		t.Errorf("%v: %s", err, out)
	}
}
