package tools

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
)

// update rewrites what the tests compare with: PIXELS_UPDATE_GOLDEN=1 go test ./tools
var update = os.Getenv("PIXELS_UPDATE_GOLDEN") != ""

// compare compares a file with what it should hold, or rewrites it.
func compare(t *testing.T, path string, want []byte) {
	t.Helper()
	if update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says (%v); look at the difference, then run PIXELS_UPDATE_GOLDEN=1 go test ./tools", path, err)
	}
}

// What clients see of a tool changes only knowingly.
func TestToolsAreAsPromised(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tool := range All() {
		shown := struct {
			Name        string          `json:"name"`
			Title       string          `json:"title"`
			Description string          `json:"description"`
			ReadOnly    bool            `json:"readOnly"`
			Destructive bool            `json:"destructive"`
			Idempotent  bool            `json:"idempotent"`
			Input       json.RawMessage `json:"input"`
			Output      json.RawMessage `json:"output"`
		}{tool.Name, tool.Title, tool.Description, tool.ReadOnly, tool.Destructive, tool.Idempotent, tool.Schemas().Input, tool.Schemas().Output}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(shown); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", tool.Name+".json")
		names = append(names, path)
		compare(t, path, b.Bytes())
		if tool.ReadOnly && tool.Destructive {
			t.Errorf("%s can't be both read-only and destructive", tool.Name)
		}
	}
	for _, f := range files {
		if !slices.Contains(names, f) {
			t.Errorf("%s is of no tool", f)
		}
	}
}

func TestTheREADMEListsTheTools(t *testing.T) {
	const begin, end = "<!-- tools: written by PIXELS_UPDATE_GOLDEN=1 go test ./tools -->\n", "<!-- end of tools -->\n"
	path := filepath.Join("..", "README.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md lacks the marks %q and %q", begin, end)
	}
	table := "| tool | what it does | arguments (? optional) |\n| --- | --- | --- |\n"
	for _, tool := range All() {
		var s jsonschema.Schema
		if err := json.Unmarshal(tool.Schemas().Input, &s); err != nil {
			t.Fatal(err)
		}
		var arguments []string
		for _, name := range tool.Schemas().Arguments {
			if !slices.Contains(s.Required, name) {
				name += "?"
			}
			arguments = append(arguments, name)
		}
		what, _, _ := strings.Cut(tool.Description, ". ")
		table += fmt.Sprintf("| `%s` | %s | %s |\n", tool.Name, strings.TrimSuffix(what, "."), strings.Join(arguments, ", "))
	}
	compare(t, path, []byte(before+begin+table+end+after))
}
