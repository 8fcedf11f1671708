package tools

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pixels/egress"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// repeated lists the texts that stand in more than one place of an answer; the elements of a list are one place.
func repeated(answer any) []string {
	found := map[string][]string{}
	var walk func(place string, v any)
	walk = func(place string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, v := range v {
				walk(place+"."+name, v)
			}
		case []any:
			for _, v := range v {
				walk(place, v)
			}
		case string:
			if !slices.Contains(found[v], place) {
				found[v] = append(found[v], place)
			}
		}
	}
	walk("", answer)
	var all []string
	for text, places := range found {
		if len(places) > 1 {
			all = append(all, text+" as "+strings.Join(places, " and "))
		}
	}
	return all
}

func TestNothingIsSaidTwice(t *testing.T) {
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rules := sandboxtest.Policy(t, "[egress]\nallow = [\"given.example\"]")
	m := manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Policy: rules, Store: store})
	s := Session{Manager: m, Operations: NewOperations(t.Context()), Caller: manager.Agent("tester")}
	call := func(tool, arguments string) map[string]any {
		t.Helper()
		out := must(t, s, tool, arguments)
		if twice := repeated(out); len(twice) > 0 {
			t.Errorf("%s %s repeats %q", tool, arguments, twice)
		}
		return out
	}
	call("create_sandbox", `{"name": "one", "labels": {"task": "docs"}}`)
	call("create_checkpoint", `{"name": "one", "label": "ready", "description": "with tools"}`)
	call("list_checkpoints", `{"name": "one"}`)

	cloned := call("clone_sandbox", `{"source": "one:ready", "names": ["two", "one", "three"], "command": "true"}`)
	clones := cloned["clones"].([]any)
	if cloned["made"] != 2.0 || cloned["failed"] != 1.0 || len(clones) != 3 {
		t.Fatalf("cloned %v", cloned)
	}
	if made := clones[0].(map[string]any); made["name"] != "two" || made["from"] != "one:ready" || made["state"] != "running" || made["exec"] == nil {
		t.Errorf("a clone is %v", made)
	}
	if failed := clones[1].(map[string]any); len(failed) != 2 || failed["name"] != "one" || failed["error"] == "" {
		t.Errorf("a clone that could not be made is %v", failed)
	}

	call("allow_domain", `{"name": "one", "domains": ["given.example", "asked.example"], "reason": "tests"}`)
	s.Human.Choose = func(context.Context, manager.Question) (manager.Choice, error) { return manager.ChooseHour, nil }
	got := call("allow_domain", `{"name": "one", "domains": ["asked.example"], "reason": "tests"}`)
	if r := got["requests"].([]any)[0].(map[string]any); r["state"] != "granted" || got["granted"] != nil {
		t.Errorf("after the answer it says %v", got)
	}
	call("egress", `{"name": "one"}`)
	call("deny_domain", `{"name": "one", "domains": ["asked.example"]}`)
	call("write_file", `{"name": "one", "path": "/tmp/f", "content": "1\n"}`)
	call("read_file", `{"name": "one", "path": "/tmp/f"}`)
	call("edit_file", `{"name": "one", "path": "/tmp/f", "old_text": "1", "new_text": "2"}`)
	call("list_files", `{"name": "one", "path": "/tmp"}`)
	started := call("exec", `{"name": "one", "command": "sleep 60", "background": true}`)
	call("wait", `{"ids": ["`+started["operation"].(string)+`"], "cancel": true}`)
	call("set_sandbox_state", `{"name": "two", "state": "stopped"}`)
	call("extend_sandbox", `{"name": "two", "ttl": "2h"}`)
	call("list_sandboxes", `{}`)
	call("restore_checkpoint", `{"name": "one", "label": "ready"}`)
	call("delete_checkpoint", `{"name": "one", "label": "ready"}`)
	call("destroy_sandbox", `{"names": ["two", "gone"]}`)
}
