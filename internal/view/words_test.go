package view

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pixels/internal/fault"
)

// below are the packages that know neither tools nor commands. What they say is read by agents, at terminals and on the page.
var below = []string{"sandbox", "incus", "policy", "egress", "internal/guest", "internal/canary"}

// ownEdge are files below whose words reach their readers by themselves: the gateway's page of a refused connection, which a program in
// a sandbox reads.
var ownEdge = map[string]bool{"egress/gateway/proxy.go": true, "egress/gateway/dial.go": true}

var edgeWords = regexp.MustCompile("`?pixels-mcp [a-z]|\\bincus (list|console|image|config|storage)|\\b(create|clone|set|extend|destroy|list|restore|delete|read|write|edit|copy|allow|deny)_" +
	"(sandbox(es|_state)?|checkpoints?|files?|domain)\\b|\\bcall wait\\b|\\buse exec\\b")

var toolNames = regexp.MustCompile(`\b[a-z]+_(sandbox(es|_state)?|checkpoints?|files?|domain)\b`)

// No sentence below the edge names a tool or a command: whoever shows it has words for what to do. A name alone is a value.
func TestNoSentenceBelowTheEdgeNamesATool(t *testing.T) {
	root := filepath.Join("..", "..")
	found := 0
	for _, dir := range below {
		err := filepath.WalkDir(filepath.Join(root, dir), func(at string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(at, ".go") || strings.HasSuffix(at, "_test.go") {
				return err
			}
			name, err := filepath.Rel(root, at)
			if err != nil || ownEdge[filepath.ToSlash(name)] || strings.Contains(name, "test") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, at, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					found++
					text, err := strconv.Unquote(n.Value)
					if n.Kind == token.STRING && err == nil && strings.Contains(text, " ") && edgeWords.MatchString(text) {
						t.Errorf("%s says %q", set.Position(n.Pos()), text)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 1000 {
		t.Errorf("it read %d literals only", found)
	}
}

// Each action has words for agents and for people.
func TestEachActionHasWords(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "fault", "hint.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	ast.Inspect(file, func(n ast.Node) bool {
		value, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		text, err := strconv.Unquote(value.Values[0].(*ast.BasicLit).Value)
		if err != nil || text == "" {
			return true
		}
		known++
		words := hints[fault.Action(text)]
		if words[Agent] == "" || words[Terminal] == "" {
			t.Errorf("nobody is told to %s: %q", text, words)
		}
		if tool := toolNames.FindString(Hint(fault.Hint{Action: fault.Action(text)}, Member)); tool != "" {
			t.Errorf("a member is told to %s by the tool %s", text, tool)
		}
		if tool := toolNames.FindString(words[Terminal] + words[Page]); tool != "" {
			t.Errorf("a human is told to %s by the tool %s", text, tool)
		}
		return true
	})
	if known < 20 || known != len(hints) {
		t.Errorf("%d actions, and words for %d", known, len(hints))
	}
}
