package main

import (
	"bytes"
	"cmp"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// sleep is a place in a test file that waits for a time.
type sleep struct {
	file string
	line int
	text string
}

// sources are what a package's test files declare: by name, what waits in it and which names it uses.
type sources struct {
	sleeps map[string][]sleep
	uses   map[string][]string
}

// readSources parses the test files of a package.
func readSources(pkg string) (*sources, error) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", pkg).Output()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*_test.go"))
	if err != nil {
		return nil, err
	}
	s := &sources{map[string][]sleep{}, map[string][]string{}}
	for _, file := range files {
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, decl := range parsed.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				s.note(fset, d.Name.Name, d)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok {
						for _, n := range v.Names {
							s.note(fset, n.Name, v)
						}
					}
				}
			}
		}
	}
	return s, nil
}

func (s *sources) note(fset *token.FileSet, declared string, node ast.Node) {
	ast.Inspect(node, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			s.uses[declared] = append(s.uses[declared], n.Name)
		case *ast.CallExpr:
			var text bytes.Buffer
			_ = printer.Fprint(&text, fset, n)
			if strings.HasPrefix(text.String(), "time.Sleep(") || strings.HasPrefix(text.String(), "time.After(") {
				at := fset.Position(n.Pos())
				s.sleeps[declared] = append(s.sleeps[declared], sleep{at.Filename, at.Line, text.String()})
			}
		}
		return true
	})
}

// sleepsOf are the places that wait in a test and in what it uses of its package's test files.
func (s *sources) sleepsOf(test string) (out []sleep) {
	top, _, _ := strings.Cut(test, "/")
	seen := map[string]bool{top: true}
	for next := []string{top}; len(next) > 0; {
		declared := next[0]
		next = next[1:]
		out = append(out, s.sleeps[declared]...)
		for _, used := range s.uses[declared] {
			if !seen[used] {
				seen[used] = true
				next = append(next, used)
			}
		}
	}
	slices.SortFunc(out, func(a, b sleep) int { return cmp.Or(cmp.Compare(a.file, b.file), a.line-b.line) })
	return out
}
