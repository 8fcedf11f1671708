package tools

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
)

// What clients send for what they mean.
func TestArgumentsAreTakenAsTheyAreMeant(t *testing.T) {
	for _, c := range []struct {
		tool          Tool
		given, wanted string
		ignored       []string
	}{
		{cloneSandbox, `{"source": "a:b", "count": "2"}`, `{"source": "a:b", "count": 2}`, nil},
		{cloneSandbox, `{"source": "a:b", "count": 2.0}`, `{"source": "a:b", "count": 2}`, nil},
		{cloneSandbox, `{"source": "a:b", "names": "[\"a\"]", "labels": {"n": 1, "ok": true}}`, `{"source": "a:b", "names": ["a"], "labels": {"n": "1", "ok": "true"}}`, nil},
		{cloneSandbox, `{"source": "a:b", "command": "[\"make\",\"test\"]"}`, `{"source": "a:b", "command": ["make","test"]}`, nil},
		{execTool, `{"name": "x", "command": "[\"make\",\"test\"]", "background": "true", "timeout": "1.5"}`, `{"name": "x", "command": ["make","test"], "background": true, "timeout": 1.5}`, nil},
		{execTool, `{"name": "x", "command": "true", "env": "{\"A\":1}", "background": "False"}`, `{"name": "x", "command": "true", "env": {"A": "1"}, "background": false}`, nil},
		{execTool, `{"name": "x", "command": "[ -f x ] && echo 1", "env": {"A": -1.50, "B": "2"}}`, `{"name": "x", "command": "[ -f x ] && echo 1", "env": {"A": "-1.50", "B": "2"}}`, nil},
		{execTool, `{"name": "x", "command": "[1]", "cwd": null}`, `{"name": "x", "command": "[1]"}`, nil},
		{writeFile, `{"name": "5", "path": "true", "content": "[\"a\"]"}`, `{"name": "5", "path": "true", "content": "[\"a\"]"}`, nil},
		{execTool, `{"name": "x", "command": "true", "toolCallId": "a", "sessionId": {"a": 1}}`, `{"name": "x", "command": "true"}`, []string{"sessionId", "toolCallId"}},
		{listSandboxes, ``, `{}`, nil},
		{listSandboxes, `null`, `{}`, nil},
	} {
		got, ignored, err := parametersOf(t, c.tool).read(json.RawMessage(c.given))
		if err != nil {
			t.Errorf("%s %s: %v", c.tool.Name, c.given, err)
			continue
		}
		var a, b any
		if err := json.Unmarshal(got, &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(c.wanted), &b); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, a) + cmp.Diff(c.ignored, ignored); diff != "" {
			t.Errorf("%s %s is taken as %s, ignoring %v: %s", c.tool.Name, c.given, got, ignored, diff)
		}
	}
}

func TestArgumentsThatMeanNothingAreNamed(t *testing.T) {
	for _, c := range []struct {
		tool  Tool
		given string
		says  []string
	}{
		{writeFile, `{"name": "x", "path": "y", "content": "00", "encoding": "hex"}`, []string{`"encoding"`, `"hex"`, "text or base64"}},
		{execTool, `{"name": "x", "comand": "true"}`, []string{`"comand"`, "did you mean command"}},
		{copyFiles, `{"name": "x", "hostPath": "y"}`, []string{`"hostPath"`, "did you mean host_path"}},
		{cloneSandbox, `{"source": "a:b", "count": "2.5"}`, []string{`"count"`, "whole number"}},
		{cloneSandbox, `{"source": "a:b", "names": "a"}`, []string{`"names"`, "is a string", "list of strings"}},
		{cloneSandbox, `{"source": "a:b", "names": [1]}`, []string{`"names"`, "list of strings"}},
		{execTool, `{"name": "x", "command": "true", "background": "maybe"}`, []string{`"background"`, "true or false"}},
		{execTool, `{"name": "x", "command": "true", "env": {"A": ["b"]}}`, []string{`"env"`, "object of strings"}},
		{execTool, `{"name": "x", "command": []}`, []string{`"command"`, "list of strings"}},
		{execTool, `{"name": null, "command": "true"}`, []string{`"name"`, "missing"}},
		{execTool, `["x"]`, []string{"no JSON object"}},
	} {
		s := sessionOver(boxed(t, "alice"), nil, "alice")
		r := c.tool.Call(t.Context(), s, json.RawMessage(c.given))
		if !r.Failed || slices.ContainsFunc(c.says, func(part string) bool { return !strings.Contains(r.Text, part) }) {
			t.Errorf("%s %s: failed %v, %q; want %q", c.tool.Name, c.given, r.Failed, r.Text, c.says)
		}
	}
}

// What a tool has not is ignored, and named beside its answer.
func TestWhatIsIgnoredIsNamed(t *testing.T) {
	s := sessionOver(boxed(t, "alice"), nil, "alice")
	r := listSandboxes.Call(t.Context(), s, json.RawMessage(`{"toolCallId": "a", "limit": "1"}`))
	b, err := json.Marshal(r.Structured)
	if err != nil || r.Failed || !strings.Contains(string(b), `"ignored":["toolCallId"]`) {
		t.Errorf("%s, %v: %s", b, err, r.Text)
	}
}

func parametersOf(t *testing.T, tool Tool) *parameters {
	t.Helper()
	input := &jsonschema.Schema{}
	if err := json.Unmarshal(tool.Schemas().Input, input); err != nil {
		t.Fatal(err)
	}
	return newParameters(input)
}
