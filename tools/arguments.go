package tools

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"pixels/internal/nearest"
)

// parameters are what a tool takes, by the schema of its input.
type parameters struct {
	schema *jsonschema.Schema
	names  []string
	checks map[string]*jsonschema.Resolved
}

// newParameters panics on a schema that is none.
func newParameters(input *jsonschema.Schema) *parameters {
	p := &parameters{schema: input, names: slices.Sorted(maps.Keys(input.Properties)), checks: map[string]*jsonschema.Resolved{}}
	for name, property := range input.Properties {
		own := &jsonschema.Schema{} // a copy, for a schema belongs to one tree
		err := json.Unmarshal(encode(property), own)
		if err == nil {
			p.checks[name], err = own.Resolve(nil)
		}
		if err != nil {
			panic(err)
		}
	}
	return p
}

// read returns arguments as the schema has them, and the names of those that it has not. Some clients send values as
// strings, and arguments of their own. The error names the argument that is wrong.
func (p *parameters) read(arguments json.RawMessage) (out json.RawMessage, ignored []string, err error) {
	given := map[string]json.RawMessage{}
	if arguments = bytes.TrimSpace(arguments); len(arguments) > 0 && string(arguments) != "null" {
		if err := json.Unmarshal(arguments, &given); err != nil {
			return nil, nil, errors.New("the arguments are no JSON object")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		property := p.schema.Properties[name]
		switch {
		case property == nil:
			if meant := nearest.Within(name, p.names, slips); meant != "" {
				return nil, nil, fmt.Errorf("unknown argument %q, did you mean %s? This tool takes: %s", name, meant, strings.Join(p.names, ", "))
			}
			ignored = append(ignored, name)
			delete(given, name)
		case string(given[name]) == "null":
			delete(given, name)
		default:
			given[name] = coerce(given[name], property)
			if err := p.check(name, given[name]); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, name := range p.schema.Required {
		if given[name] == nil {
			return nil, nil, fmt.Errorf("the argument %q is missing; required: %s", name, strings.Join(p.schema.Required, ", "))
		}
	}
	out, err = json.Marshal(given)
	return out, ignored, err
}

// slips is how many letters a misspelt argument may differ in.
const slips = 2

// check validates one argument.
func (p *parameters) check(name string, value json.RawMessage) error {
	property := p.schema.Properties[name]
	if property.AnyOf != nil {
		return nil // its type says better what is wrong
	}
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return fmt.Errorf("the argument %q can't be read: %w", name, err)
	}
	if p.checks[name].Validate(v) == nil {
		return nil
	}
	if text, ok := v.(string); ok && property.Type == "string" {
		return fmt.Errorf("the argument %q is %q; give %s", name, text, wanted(property))
	}
	return fmt.Errorf("the argument %q is %s; give %s", name, kindOf(v), wanted(property))
}

// coerce makes of a value what the schema wants, where it is clear what is meant; else it returns the value.
func coerce(value json.RawMessage, s *jsonschema.Schema) json.RawMessage {
	switch {
	case s.AnyOf != nil:
		if inner := unquote(value); len(inner) > 0 && inner[0] == '[' && slices.ContainsFunc(s.AnyOf, func(one *jsonschema.Schema) bool { return fits(inner, one) }) {
			return inner
		}
	case s.Type == "integer", s.Type == "number":
		if inner := unquote(value); inner != nil {
			value = inner
		}
		if n, err := strconv.ParseFloat(string(value), 64); err == nil && s.Type == "integer" && n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return strconv.AppendInt(nil, int64(n), 10) // 2.0 is a whole number
		}
	case s.Type == "boolean":
		if inner := unquote(value); inner != nil {
			return inner
		}
	case s.Type == "array":
		if inner := unquote(value); len(inner) > 0 && inner[0] == '[' {
			return inner
		}
	case s.Type == "object":
		if inner := unquote(value); len(inner) > 0 && inner[0] == '{' {
			value = inner
		}
		return coerceValues(value, s.AdditionalProperties)
	}
	return value
}

// coerceValues has the values of an object be strings where those are wanted: a number is meant as its digits.
func coerceValues(value json.RawMessage, each *jsonschema.Schema) json.RawMessage {
	var fields map[string]json.RawMessage
	if each == nil || each.Type != "string" || json.Unmarshal(value, &fields) != nil {
		return value
	}
	for name, v := range fields {
		if v = bytes.TrimSpace(v); len(v) > 0 && strings.ContainsRune("-0123456789tf", rune(v[0])) {
			fields[name] = strconv.AppendQuote(nil, string(v))
		}
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return value
	}
	return b
}

// unquote returns what a JSON string holds where that is JSON itself, or Python's True or False; nil where not.
func unquote(value json.RawMessage) json.RawMessage {
	var text string
	if len(value) == 0 || value[0] != '"' || json.Unmarshal(value, &text) != nil {
		return nil
	}
	inner := bytes.TrimSpace([]byte(text))
	switch {
	case string(inner) == "True", string(inner) == "False":
		return bytes.ToLower(inner)
	case json.Valid(inner):
		return inner
	}
	return nil
}

// fits tells whether a value is of a schema's type, and its items of theirs.
func fits(value json.RawMessage, s *jsonschema.Schema) bool {
	var items []string
	return s.Type == "array" && json.Unmarshal(value, &items) == nil && len(items) > 0
}

// kindOf names a value as JSON has it.
func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case float64:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return "null"
}

// wanted says what a schema takes.
func wanted(s *jsonschema.Schema) string {
	if len(s.Enum) > 0 {
		var words []string
		for _, v := range s.Enum {
			words = append(words, fmt.Sprint(v))
		}
		last := len(words) - 1
		return strings.Join(words[:last], ", ") + " or " + words[last]
	}
	switch s.Type {
	case "integer":
		return "a whole number"
	case "number":
		return "a number"
	case "boolean":
		return "true or false"
	case "array":
		return "a list of strings"
	case "object":
		return "an object of strings"
	}
	return "a string"
}
