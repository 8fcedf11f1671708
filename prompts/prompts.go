// Package prompts holds ways to work with sandboxes that people give to their agents: each is a Markdown file with front matter (TOML)
// and a template, in which the calls that it wants made stand in blocks of the kind "call", so that tests can play them.
package prompts

import (
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/template"

	"github.com/pelletier/go-toml/v2"
)

//go:embed *.md
var files embed.FS

// Prompt is one of them.
type Prompt struct {
	Name        string     `toml:"-"` // that of its file
	Title       string     `toml:"title"`
	Description string     `toml:"description"`
	Arguments   []Argument `toml:"arguments"`

	text *template.Template
}

// Argument is what a prompt is filled in with.
type Argument struct {
	Name        string `toml:"name"`
	Description string `toml:"description"`
	Required    bool   `toml:"required"`
}

// All are the prompts by name.
var All = sync.OnceValue(func() []Prompt {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err)
	}
	var out []Prompt
	for _, e := range entries {
		b, err := files.ReadFile(e.Name())
		if err == nil {
			var p Prompt
			if p, err = parse(strings.TrimSuffix(e.Name(), ".md"), string(b)); err == nil {
				out = append(out, p)
				continue
			}
		}
		panic(fmt.Errorf("prompt %s: %w", e.Name(), err)) // a file of ours, which a test reads
	}
	return out
})

const fence = "+++\n"

func parse(name, text string) (p Prompt, err error) {
	rest, ok := strings.CutPrefix(text, fence)
	front, body, closed := strings.Cut(rest, fence)
	if !ok || !closed {
		return p, fmt.Errorf("its front matter must stand between two lines of +++")
	}
	if err := toml.NewDecoder(strings.NewReader(front)).DisallowUnknownFields().Decode(&p); err != nil {
		return p, err
	}
	p.Name = name
	p.text, err = template.New(name).Option("missingkey=zero").Parse(body)
	return p, err
}

// Text fills a prompt in. Its error names the argument that is missing, or that it does not have.
func (p Prompt) Text(arguments map[string]string) (string, error) {
	values := map[string]string{}
	for _, a := range p.Arguments {
		if values[a.Name] = strings.TrimSpace(arguments[a.Name]); a.Required && values[a.Name] == "" {
			return "", fmt.Errorf("the argument %q is missing: %s", a.Name, a.Description)
		}
	}
	for name := range arguments {
		if !slices.ContainsFunc(p.Arguments, func(a Argument) bool { return a.Name == name }) {
			return "", fmt.Errorf("there is no argument %q", name)
		}
	}
	var b strings.Builder
	if err := p.text.Execute(&b, values); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// Call is one that a prompt's text names.
type Call struct {
	Tool      string
	Arguments json.RawMessage
}

// Calls are those of a text, in their order.
func Calls(text string) (out []Call, err error) {
	in := false
	for line := range strings.Lines(text) {
		switch line = strings.TrimSpace(line); {
		case line == "```call":
			in = true
		case line == "```":
			in = false
		case in:
			tool, arguments, _ := strings.Cut(line, " ")
			if !json.Valid([]byte(arguments)) {
				return nil, fmt.Errorf("%q has no arguments in JSON", line)
			}
			out = append(out, Call{tool, json.RawMessage(arguments)})
		}
	}
	return out, nil
}
