// Package tools holds the MCP tools: one static value each, with its schemas, and a thin handler that asks the Manager.
// It knows nothing of how tools are served.
package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"pixels/egress"
	"pixels/internal/nearest"
	"pixels/sandbox"
)

// Tool is one MCP tool.
type Tool struct {
	Name, Title, Description string
	ReadOnly                 bool // changes nothing
	Destructive              bool // may take away what can't be had back
	Idempotent               bool // done twice is as done once
	Long                     bool // may outlast a call, and then goes on as an operation; the output has a field for its ID

	Input, Output json.RawMessage // JSON Schemas
	Arguments     []string        // of the input, as they are declared
	Call          func(ctx context.Context, s Session, arguments json.RawMessage) Result
}

// Session is on whose behalf a tool is called.
type Session struct {
	Manager    *sandbox.Manager
	Operations *Operations
	Owner      string
	Progress   func(message string) // tells the caller how it goes; nil when it doesn't want to know
	Human      Human
}

// Result is what a call answers: Structured conforms to the tool's output schema, Text says the same. With Failed set,
// Text says what is wrong and what to do, and Structured may be nil.
type Result struct {
	Structured any
	Text       string
	Image      *Image // shown beside Text
	Failed     bool

	err error // what ended the call
}

// Image is a picture.
type Image struct {
	Type string // MIME
	Data []byte
}

// All lists the tools, in the order in which they are offered.
func All() []Tool {
	return []Tool{
		createSandbox, cloneSandbox, listSandboxes, setSandboxState, extendSandbox, destroySandbox,
		createCheckpoint, listCheckpoints, restoreCheckpoint, deleteCheckpoint,
		execTool, waitTool, readFile, writeFile, editFile, listFiles, copyFiles,
		allowDomain, denyDomain, egressTool,
	}
}

// define completes a tool by its handler, whose types give the schemas. It panics on types that have none.
func define[In, Out any](t Tool, handle func(ctx context.Context, s Session, in In) (Out, Result, error)) Tool {
	input, output := schema[In](), schema[Out]()
	terse(output, t.Name)
	if t.Long {
		// Its answer may be the operation alone.
		output.Required = nil
		output.Properties["operation"] = &jsonschema.Schema{Type: "string", Description: "still under way, and all that the answer has: give it to wait"}
	}
	t.Input, t.Output, t.Arguments = encode(input), encode(output), input.PropertyOrder
	t.Call = func(ctx context.Context, s Session, arguments json.RawMessage) Result {
		var in In
		if err := decode(arguments, input, &in); err != nil {
			return failure(err)
		}
		work := func(ctx context.Context) Result {
			out, result, err := handle(ctx, s, in)
			if err != nil {
				return failure(err)
			}
			result.Structured = out
			return result
		}
		if !t.Long {
			return work(ctx)
		}
		result, id := s.Operations.do(ctx, s.Owner, t.Name, work)
		if id == "" {
			return result
		}
		return Result{Structured: map[string]string{"operation": id}, Text: fmt.Sprintf("it is still under way, as the operation %s: call wait for its result", id)}
	}
	return t
}

// failure is the result of a call that an error ended.
func failure(err error) Result {
	return Result{Text: err.Error(), Failed: true, err: err}
}

// schema derives the JSON Schema of a type.
func schema[T any]() *jsonschema.Schema {
	s, err := jsonschema.For[T](&jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[command](): {
			AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "array", Items: &jsonschema.Schema{Type: "string"}, MinItems: jsonschema.Ptr(1)}},
		},
		reflect.TypeFor[egress.Mode](): {Type: "string", Enum: []any{egress.None, egress.Agent, egress.Allowlist, egress.Unrestricted}},
		reflect.TypeFor[encoding]():    {Type: "string", Enum: []any{"text", base64Encoding}},
		reflect.TypeFor[direction]():   {Type: "string", Enum: []any{"in", "out"}},
		reflect.TypeFor[wantedState](): {Type: "string", Enum: []any{sandbox.Running, sandbox.Stopped, sandbox.Paused}},
		reflect.TypeFor[sandbox.State](): {
			Type: "string", Enum: []any{sandbox.Creating, sandbox.Running, sandbox.Stopped, sandbox.Paused, sandbox.Error},
		},
	}})
	if err != nil {
		panic(err)
	}
	simplify(s)
	return s
}

// simplify drops the null that slices and maps of Go may be: here they never are.
func simplify(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	s.Types = slices.DeleteFunc(s.Types, func(t string) bool { return t == "null" })
	switch len(s.Types) {
	case 0:
		s.Types = nil
	case 1:
		s.Type, s.Types = s.Types[0], nil
	}
	simplify(s.Items)
	simplify(s.AdditionalProperties)
	for _, p := range s.Properties {
		simplify(p)
	}
}

// terse drops from an output's schema what only takes room: all tools together have a budget, and clients put them into
// every prompt. What a sandbox is, and what a command leaves, one tool each says for all.
func terse(s *jsonschema.Schema, tool string) {
	if s == nil {
		return
	}
	if s.Properties["expires_at"] != nil && (tool == "clone_sandbox" || tool == "extend_sandbox") { // others say what a sandbox is
		s.Properties, s.Required, s.AdditionalProperties, s.PropertyOrder = nil, nil, nil, nil
		return
	}
	if s.Properties["expires_at"] != nil && tool != "list_sandboxes" || s.Properties["exit_code"] != nil && tool != "exec" {
		for _, p := range s.Properties {
			p.Description, p.Enum = "", nil
		}
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Not != nil { // that is, none may come
		s.AdditionalProperties = nil
	}
	terse(s.Items, tool)
	if s.Items != nil {
		s.Items.Required = nil
	}
	for _, p := range s.Properties {
		terse(p, tool)
		p.Required = nil
	}
}

func encode(s *jsonschema.Schema) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	if len(s.Properties) == 0 {
		// Some clients take an object without this for no schema at all.
		b = append([]byte(`{"properties":{},`), b[1:]...)
	}
	return b
}

// decode reads arguments into in, and names the one that is wrong.
func decode(arguments json.RawMessage, s *jsonschema.Schema, in any) error {
	arguments = bytes.TrimSpace(arguments)
	if len(arguments) == 0 || string(arguments) == "null" {
		arguments = json.RawMessage("{}")
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(arguments, &given); err != nil {
		return errors.New("the arguments are no JSON object")
	}
	var known []string
	for name := range s.Properties {
		known = append(known, name)
	}
	slices.Sort(known)
	for name := range given {
		if !slices.Contains(known, name) {
			return fmt.Errorf("unknown argument %q%s (this tool takes: %s)", name, nearest.Hint(name, known), orNone(known))
		}
	}
	for _, name := range s.Required {
		if v, ok := given[name]; !ok || string(v) == "null" {
			return fmt.Errorf("the argument %q is missing; required: %s", name, strings.Join(s.Required, ", "))
		}
	}
	err := json.Unmarshal(arguments, in)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("the argument %q is a %s; give %s", wrong.Field, wrong.Value, kind(wrong.Type))
	}
	if err != nil {
		return fmt.Errorf("the arguments can't be read: %w", err)
	}
	return nil
}

func orNone(words []string) string {
	if len(words) == 0 {
		return "no arguments"
	}
	return strings.Join(words, ", ")
}

// kind names a Go type as JSON has it.
func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list of strings"
	case reflect.Map:
		return "an object of strings"
	}
	return "a " + t.Kind().String()
}
