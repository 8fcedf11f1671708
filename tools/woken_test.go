package tools

import (
	"encoding/json"
	"strings"
	"testing"

	"pixels/egress"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// Who uses a sandbox that sleeps is told that it was started for that, once.
func TestWhoWakesASandboxIsTold(t *testing.T) {
	b := sandboxtest.NewMemory()
	s := Session{Manager: manager.New(b, manager.Defaults{Image: sandboxtest.Image, Egress: egress.None}), Operations: NewOperations(t.Context()), Caller: manager.Agent("me")}
	must(t, s, "create_sandbox", `{"name": "box"}`)
	for tool, arguments := range map[string]string{
		"exec": `{"name": "box", "command": "echo hi"}`, "write_file": `{"name": "box", "path": "f", "content": "x"}`, "list_files": `{"name": "box"}`,
	} {
		swept, err := b.Sweep(t.Context(), sandbox.SweepRules{Idle: 1})
		if err != nil || len(swept.Idle) != 1 {
			t.Fatalf("%s: it does not sleep: %+v, %v", tool, swept, err)
		}
		if all := Call(t.Context(), s, "list_sandboxes", nil); !strings.Contains(all.Text, "asleep") {
			t.Errorf("listed it is %s", all.Text)
		}
		for _, want := range []bool{true, false} {
			r := Call(t.Context(), s, tool, json.RawMessage(arguments))
			text, err := json.Marshal(r.Structured)
			if r.Failed || err != nil || strings.Contains(string(text), `"woken":true`) != want || strings.Contains(r.Text, "started again") != want {
				t.Errorf("%s answers %s, %s, %v; that it was woken: %v", tool, text, r.Text, err, want)
			}
		}
	}
	if _, err := b.Sweep(t.Context(), sandbox.SweepRules{Idle: 1}); err != nil {
		t.Fatal(err)
	}
	s.Manager = manager.New(b, manager.Defaults{Image: sandboxtest.Image, Policy: sandboxtest.Policy(t, "[tools]\noff = [\"set_sandbox_state\"]")})
	if r := Call(t.Context(), s, "exec", json.RawMessage(`{"name": "box", "command": "true"}`)); !r.Failed || !strings.Contains(r.Text, "denied by the policy") {
		t.Errorf("against the policy it is woken: %s", r.Text)
	}
}
