package server

import (
	"strings"
	"testing"

	"pixels/egress"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// The instructions are long enough to help, and short enough that no client cuts them.
func TestInstructionsAreSeenWhole(t *testing.T) {
	if n := len(instructions); n < 700 || n > 2000 {
		t.Errorf("they have %d bytes", n)
	}
	for _, word := range []string{"create_sandbox", "clone_sandbox", "allow_domain", "wait", "egress denied", "Never"} {
		if !strings.Contains(instructions, word) {
			t.Errorf("they say nothing of %s", word)
		}
	}
}

// Prompts are listed with their arguments, which are completed by what there is; what is wrong is said.
func TestPromptsAreOffered(t *testing.T) {
	m := manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.None})
	for _, name := range []string{"base", "box"} {
		if _, err := m.Create(t.Context(), manager.Agent("alice"), manager.CreateRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.CreateCheckpoint(t.Context(), manager.Agent("alice"), "base", "ready", ""); err != nil {
		t.Fatal(err)
	}
	c := newLiner(t, m, "alice", "{}")
	ask := func(id, method, params string) string {
		c.say(t, `{"jsonrpc":"2.0","id":"`+id+`","method":"`+method+`","params":`+params+`}`)
		line, _ := c.await(t, `"id":"`+id+`"`)
		return line
	}
	for id, test := range map[string]struct{ method, params, want string }{
		"a": {"prompts/list", `{}`, `"name":"spawn_workers"`},
		"b": {"prompts/list", `{}`, `"required":true`},
		"c": {"completion/complete", `{"ref":{"type":"ref/prompt","name":"hand_over"},"argument":{"name":"sandbox","value":"b"}}`, `"values":["base","box"]`},
		"d": {"completion/complete", `{"ref":{"type":"ref/prompt","name":"spawn_workers"},"argument":{"name":"source","value":""}}`, `"values":["base:ready"]`},
		"e": {"completion/complete", `{"ref":{"type":"ref/prompt","name":"spawn_workers"},"argument":{"name":"task","value":"x"}}`, `"values":[]`},
		"f": {"prompts/get", `{"name":"hand_over","arguments":{}}`, `the argument \"sandbox\" is missing`},
		"g": {"prompts/get", `{"name":"hand_over","arguments":{"sandbox":"box","more":"x"}}`, `no argument \"more\"`},
		"h": {"prompts/get", `{"name":"spawn_workers","arguments":{"task":"t","source":"base:ready"}}`, `\"source\": \"base:ready\"`},
	} {
		if got := ask(id, test.method, test.params); !strings.Contains(got, test.want) {
			t.Errorf("%s %s: %s", test.method, test.params, got)
		}
	}
	if got := ask("i", "prompts/get", `{"name":"spawn_workers","arguments":{"task":"t","source":"base:ready"}}`); strings.Contains(got, "create_sandbox") {
		t.Errorf("a base is made where there is one: %s", got)
	}
}
