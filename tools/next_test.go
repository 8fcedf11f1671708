package tools

import (
	"path/filepath"
	"strings"
	"testing"

	"pixels/egress"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// What an agent is to call next stands in the structured result, for clients that drop the text, and in the text.
func TestTheAnswerSaysWhatToCallNext(t *testing.T) {
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := Session{
		Manager:    manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Store: store}),
		Operations: NewOperations(t.Context()), Caller: manager.Agent("tester"),
	}
	for _, c := range []struct{ tool, arguments, next string }{
		{"create_sandbox", `{"name": "one"}`, ""},
		{"create_sandbox", `{"name": "two", "allow": ["a.example.com"]}`, "wait with ids [\"req-"},
		{"list_sandboxes", `{}`, ""},
		{"list_sandboxes", `{"limit": 1}`, "list_sandboxes with cursor \"one\""},
		{"allow_domain", `{"name": "one", "domains": ["b.example.com"], "reason": "docs"}`, "wait with ids [\"req-"},
		{"write_file", `{"name": "one", "path": "/tmp/f", "content": "1\n2\n3\n"}`, ""},
		{"read_file", `{"name": "one", "path": "/tmp/f", "limit": 2}`, "read_file with offset 3"},
		{"read_file", `{"name": "one", "path": "/tmp/f"}`, ""},
		{"exec", `{"name": "one", "command": "true"}`, ""},
		{"exec", `{"name": "one", "command": "sleep 60", "background": true}`, "wait with ids [\"one."},
	} {
		out, text := answer(t, s, c.tool, c.arguments)
		next, _ := out["next"].(string)
		if c.next == "" && next != "" || !strings.Contains(next, c.next) || next != "" && !strings.HasSuffix(text, "[next: "+next+"]") {
			t.Errorf("%s %s says next %q, want %q, and as text: %s", c.tool, c.arguments, next, c.next, text)
		}
		if id, _ := out["operation"].(string); id != "" {
			waited := must(t, s, "wait", `{"ids": ["`+id+`"], "timeout": 0}`)
			if next, _ := waited["next"].(string); !strings.Contains(next, id) {
				t.Errorf("of what runs still wait says next %q", next)
			}
			must(t, s, "wait", `{"ids": ["`+id+`"], "cancel": true}`)
		}
		for key, value := range out {
			if value == nil || value == "" || value == false {
				t.Errorf("%s answers an empty %s: %v", c.tool, key, value)
			}
		}
	}
}
