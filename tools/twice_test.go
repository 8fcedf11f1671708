package tools

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
	m, door := manager.NewWithDoor(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Policy: rules, Store: store})
	s := Session{Manager: m, Operations: NewOperations(t.Context()), Caller: manager.Agent("tester")}
	call := func(tool Tool, arguments string) (out map[string]any) {
		t.Helper()
		r := tool.Call(t.Context(), s, json.RawMessage(arguments))
		b, err := json.Marshal(r.Structured)
		if err == nil {
			err = json.Unmarshal(b, &out)
		}
		if err != nil || r.Failed {
			t.Fatalf("%s %s: %v, %s", tool.Name, arguments, err, r.Text)
		}
		if twice := repeated(out); len(twice) > 0 {
			t.Errorf("%s %s repeats %q", tool.Name, arguments, twice)
		}
		return out
	}
	call(createSandbox, `{"name": "one", "labels": {"task": "docs"}}`)
	call(createCheckpoint, `{"name": "one", "label": "ready", "description": "with tools"}`)
	call(listCheckpoints, `{"name": "one"}`)

	cloned := call(cloneSandbox, `{"source": "one:ready", "names": ["two", "one", "three"], "command": "true"}`)
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

	asked := call(allowDomain, `{"name": "one", "domains": ["given.example", "asked.example"], "reason": "tests"}`)
	id := asked["requests"].([]any)[0].(map[string]any)["id"].(string)
	go func() {
		time.Sleep(300 * time.Millisecond) // so that the call below waits for it
		human := door.Human("test")
		r, err := human.Request(id)
		if err == nil {
			_, err = human.Approve(t.Context(), manager.Approval{ID: id, Seen: human.Digest(r), By: "test"})
		}
		if err != nil {
			t.Error(err)
		}
	}()
	got := call(allowDomain, `{"name": "one", "domains": ["asked.example"], "reason": "tests", "wait": 30}`)
	if r := got["requests"].([]any)[0].(map[string]any); r["state"] != "granted" || got["granted"] != nil {
		t.Errorf("after the answer it says %v", got)
	}
	call(egressTool, `{"name": "one"}`)
	call(denyDomain, `{"name": "one", "domains": ["asked.example"]}`)
	call(writeFile, `{"name": "one", "path": "/tmp/f", "content": "1\n"}`)
	call(readFile, `{"name": "one", "path": "/tmp/f"}`)
	call(editFile, `{"name": "one", "path": "/tmp/f", "old_text": "1", "new_text": "2"}`)
	call(listFiles, `{"name": "one", "path": "/tmp"}`)
	started := call(execTool, `{"name": "one", "command": "sleep 60", "background": true}`)
	call(waitTool, `{"ids": ["`+started["operation"].(string)+`"], "cancel": true}`)
	call(setSandboxState, `{"name": "two", "state": "stopped"}`)
	call(extendSandbox, `{"name": "two", "ttl": "2h"}`)
	call(listSandboxes, `{}`)
	call(restoreCheckpoint, `{"name": "one", "label": "ready"}`)
	call(deleteCheckpoint, `{"name": "one", "label": "ready"}`)
	call(destroySandbox, `{"names": ["two", "gone"]}`)
}
