package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Scripts read what --json prints: it is one document for each command, and its fields are those that are pinned here.
// PIXELS_UPDATE_GOLDEN=1 pins them anew.
func TestEachJSONDocument(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "json")
	var said strings.Builder
	document := func(typed string) (v any) {
		t.Helper()
		c := p.command(t.Context(), strings.Fields(typed)...)
		c.Stderr = nil
		out, err := c.Output()
		code := c.ProcessState.ExitCode()
		d := json.NewDecoder(strings.NewReader(string(out)))
		if e := d.Decode(&v); e != nil {
			t.Errorf("%s: %v, %v in %q", typed, err, e, out)
		}
		if e := d.Decode(new(any)); !errors.Is(e, io.EOF) {
			t.Errorf("%s: more than one document: %s", typed, out)
		}
		if v != nil { // the IDs are others each time
			typed = strings.Join(slices.DeleteFunc(strings.Fields(typed), func(w string) bool {
				return strings.Contains(w, ".") && w != "other.example.com" || strings.HasPrefix(w, "req-")
			}), " ")
		}
		fmt.Fprintf(&said, "%s (%d)\n", typed, code)
		for _, path := range shape("", v) {
			if path != ".missing" { // what this machine does not promise just now, which tests beside this one change
				fmt.Fprintf(&said, "  %s\n", path)
			}
		}
		return v
	}
	document("create box --egress none --label a=b --json")
	document("create one two --egress allowlist --json")
	document("list --json")
	document("status box --json")
	document("stop two --json")
	document("start two --json")
	document("extend two 3h --json")
	document("rename two three --json")
	document("resize three --cpu 1 --json")
	document("checkpoint create box --label ready --description what-for --json")
	document("checkpoint list box --json")
	document("checkpoint restore box ready --json")
	document("clone box:ready -n 1 --json -- true")
	id := strings.TrimSpace(p.does("exec", "-d", "box", "true"))
	document("wait " + id + " --json")
	document("logs box --json")
	document("sessions box --json")
	document("network show one --json")
	document("network allow one other.example.com --json")
	document("network grants one --json")
	document("network revoke one other.example.com --json")
	document("network deny one other.example.com --json")
	document("network set one none --json")
	document("requests list --json --all")
	document("audit --limit 1 --json --kind exec --sandbox box")
	document("audit verify --json")
	document("config --json")
	document("policy check --as somebody list_sandboxes {} --json")

	golden := filepath.Join("testdata", "json.golden")
	if os.Getenv("PIXELS_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(said.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if said.String() != string(want) {
		t.Errorf("the documents are\n%s", said.String())
	}
}

// shape are the paths of a document at which there is something that is no object or list.
func shape(at string, v any) (paths []string) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			paths = append(paths, shape(at+"."+key, v[key])...)
		}
	case []any:
		for _, one := range v {
			paths = append(paths, shape(at+"[]", one)...)
		}
		if len(v) == 0 {
			paths = []string{at + "[]"}
		}
		slices.Sort(paths)
		paths = slices.Compact(paths)
	default:
		paths = []string{at}
	}
	return paths
}
