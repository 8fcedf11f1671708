// Package tools holds the MCP tools: one static value each, with its schemas, and a thin handler that asks the Manager.
// It knows nothing of how tools are served.
package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/jsonschema-go/jsonschema"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// Tool is one MCP tool.
type Tool struct {
	Verb                     policy.Verb // what it does, for the policy
	Name, Title, Description string      // Name is the verb
	ReadOnly                 bool        // changes nothing
	Destructive              bool        // may take away what can't be had back
	Idempotent               bool        // done twice is as done once
	Wakes                    bool        // wakes a sandbox that sleeps; the output then says so
	Tasks                    bool        // a call may go on as a task, where the client knows those
	Long                     bool        // may outlast a call, and then goes on as an operation; the output has a field for its ID

	Schemas func() Schemas // made when they are asked for first: a command line makes one call, if any
	Call    func(ctx context.Context, s Session, arguments json.RawMessage) Result
}

// Schemas are what a tool takes and what it answers.
type Schemas struct {
	Input, Output json.RawMessage // JSON Schemas
	Arguments     []string        // of the input, as they are declared
}

// Progress tells how a call goes: done of total parts, where it is known how many there are, and else 0 of 0.
type Progress func(message string, done, total int)

// Session is on whose behalf a tool is called.
type Session struct {
	Manager    *manager.Manager
	Operations *Operations
	Caller     manager.Caller
	Progress   Progress // tells the caller how it goes; nil when it doesn't want to know
	Human      Human
	Audience   view.Audience // who reads errors

	// Hold holds the caller's right to call for what outlasts the call: over ends with it, and done gives it back. Nil where it has no end.
	Hold func() (over context.Context, done func())

	AsTask bool // what takes longer than a moment goes on as a task
}

// Result is what a call answers: Structured conforms to the tool's output schema, Text says the same. With Failed set,
// Text says what is wrong and what to do, and Structured may be nil.
type Result struct {
	Structured any
	Text       string
	Next       string // what to call next, where the answer is not all; the structured result has it, too
	Image      *Image // shown beside Text
	Operation  string // the ID under which the call goes on; empty once it has ended
	Failed     bool

	woken bool  // a sandbox was woken for it
	err   error // what ended the call
}

// Err is what ended a call that failed; nil where its structured result says it.
func (r Result) Err() error { return r.err }

// Cause is what the operator is to know of a failure, and the caller not; nil where there is nothing.
func (r Result) Cause() error { return fault.Cause(r.err) }

// Image is a picture.
type Image struct {
	Type string // MIME
	Data []byte
}

// All lists the tools, in the order in which they are offered.
func All() []Tool {
	return []Tool{
		createSandbox, cloneSandbox, listSandboxes, setSandboxState, extendSandbox, renameSandbox, resizeSandbox, destroySandbox,
		createCheckpoint, listCheckpoints, restoreCheckpoint, deleteCheckpoint,
		execTool, waitTool, readFile, writeFile, editFile, listFiles, copyFiles,
		allowDomain, denyDomain, egressTool, mintToken,
	}
}

// Call calls the tool of a name.
func Call(ctx context.Context, s Session, name string, arguments json.RawMessage) Result {
	for _, t := range All() {
		if t.Name == name {
			return t.Call(ctx, s, arguments)
		}
	}
	return failure(s.Audience, policy.Verb(name).Check())
}

// define completes a tool by its handler, whose types give the schemas. It panics on types that have none.
func define[In, Out any](t Tool, handle func(ctx context.Context, s Session, in In) (Out, Result, error)) Tool {
	t.Name = string(t.Verb)
	input := sync.OnceValue(schema[In])
	known := sync.OnceValue(func() *parameters { return newParameters(input()) })
	t.Schemas = sync.OnceValue(func() Schemas {
		output := schema[Out]()
		extensible(output)
		if t.Long {
			// Its answer may be the operation alone.
			output.Required = nil
			output.Properties["operation"] = &jsonschema.Schema{Type: "string", Description: "still under way, and all that the answer has: give it to wait"}
		}
		output.Properties["next"] = &jsonschema.Schema{Type: "string"}
		if t.Wakes {
			output.Properties["woken"] = &jsonschema.Schema{Type: "boolean"}
		}
		return Schemas{encode(input()), encode(output), input().PropertyOrder}
	})
	call := func(ctx context.Context, s Session, arguments json.RawMessage) Result {
		var in In
		if err := json.Unmarshal(arguments, &in); err != nil {
			return failure(s.Audience, fmt.Errorf("the arguments can't be read: %w", err))
		}
		work := func(ctx context.Context) Result {
			out, result, err := handle(ctx, s, in)
			if err != nil {
				return failure(s.Audience, err)
			}
			result.Structured = out
			return result.complete(s.Audience, nil)
		}
		if !t.Long {
			return work(ctx)
		}
		return s.Operations.Do(ctx, s, t.Name, work)
	}
	t.Call = func(ctx context.Context, s Session, arguments json.RawMessage) Result {
		arguments, ignored, err := known().read(arguments)
		if err != nil {
			return failure(s.Audience, fault.Errorf(fault.Invalid, fault.Hint{}, "%v", err))
		}
		var woken atomic.Bool
		if tell := s.Caller.Woken; t.Wakes {
			s.Caller.Woken = func(name string) {
				woken.Store(true)
				if tell != nil {
					tell(name)
				}
			}
		}
		r := call(ctx, s, arguments)
		r.woken = woken.Load()
		return r.complete(s.Audience, ignored)
	}
	return t
}

// complete adds to what a call answers the arguments that were ignored, and what to call next.
func (r Result) complete(to view.Audience, ignored []string) Result {
	if r.Next != "" {
		r.Text += "\n[next: " + r.Next + "]"
	}
	if r.woken {
		r.Text += "\n[it was not used for long, and was started again for this]"
	}
	if len(ignored) == 0 && r.Next == "" && !r.woken || r.Structured == nil {
		return r
	}
	b, err := json.Marshal(r.Structured)
	fields := map[string]any{}
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(b))
		decoder.UseNumber()
		err = decoder.Decode(&fields)
	}
	if err != nil {
		return failure(to, err)
	}
	if len(ignored) > 0 {
		fields["ignored"] = ignored
	}
	if r.Next != "" {
		fields["next"] = r.Next
	}
	if r.woken {
		fields["woken"] = true
	}
	r.Structured, r.Next = fields, ""
	return r
}

// waitCall is how to wait for operations and requests.
func waitCall(ids ...string) string {
	if len(ids) == 0 {
		return ""
	}
	b, _ := json.Marshal(ids) // it can be written
	return "wait with ids " + string(b)
}

// failure is the result of a call that an error ended.
func failure(to view.Audience, err error) Result {
	return Result{Text: view.Error(err, to), Failed: true, err: err}
}

// schema derives the JSON Schema of a type.
func schema[T any]() *jsonschema.Schema {
	s, err := jsonschema.For[T](&jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[command](): {
			AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "array", Items: &jsonschema.Schema{Type: "string"}, MinItems: jsonschema.Ptr(1)}},
		},
		reflect.TypeFor[otherResult](): {Type: "object", AdditionalProperties: &jsonschema.Schema{}},
		reflect.TypeFor[egress.Mode](): {Type: "string", Enum: []any{egress.None, egress.Agent, egress.Allowlist, egress.Unrestricted}},
		reflect.TypeFor[encoding]():    {Type: "string", Enum: []any{"text", base64Encoding}},
		reflect.TypeFor[ending]():      {Type: "string", Enum: []any{keepThem, destroyThem}},
		reflect.TypeFor[direction]():   {Type: "string", Enum: []any{"in", "out"}},
		reflect.TypeFor[wantedState](): {Type: "string", Enum: []any{sandbox.Running, sandbox.Stopped, sandbox.Paused}},
		reflect.TypeFor[sandbox.State](): {
			Type: "string", Enum: []any{sandbox.Creating, sandbox.Running, sandbox.Stopped, sandbox.Paused, sandbox.Broken},
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

// extensible lets objects of an output have more than is known of them: a client of today must take what comes tomorrow.
func extensible(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Not != nil { // that is, none may come
		s.AdditionalProperties = nil
	}
	s.Enum = nil // nor may a word that is new be an error
	extensible(s.Items)
	for _, p := range s.Properties {
		extensible(p)
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
