package server

import (
	"bufio"
	"encoding/json"
	"io"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/rs/zerolog"

	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
	"pixels/tools"
)

// The budget is that of what is sent, for clients put most of it into every prompt.
func TestToolsFitTheirBudget(t *testing.T) {
	fromClient, toServer := io.Pipe()
	fromServer, toClient := io.Pipe()
	go func() {
		_ = New("test", tools.Session{Manager: manager.New(sandboxtest.NewMemory(), manager.Defaults{})}, zerolog.Nop()).Serve(t.Context(), fromClient, toClient)
	}()
	defer toServer.Close()
	lines := bufio.NewReader(fromServer)
	say := func(line string) {
		t.Helper()
		if _, err := io.WriteString(toServer, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	hear := func() []byte {
		t.Helper()
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	say(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	hear()
	say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	say(`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
	fits(t, hear())
}

// fits checks that an answer to tools/list takes no more than it may.
func fits(t *testing.T, sent []byte) {
	t.Helper()
	type shown struct { // to a model
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Input       json.RawMessage `json:"inputSchema"`
	}
	var list struct {
		Result struct {
			Tools []struct {
				shown
				Output *jsonschema.Schema `json:"outputSchema"`
			} `json:"tools"`
		} `json:"result"`
	}
	if err := json.Unmarshal(sent, &list); err != nil {
		t.Fatal(err)
	}
	model := 0
	for _, tool := range list.Result.Tools {
		b, err := json.Marshal(tool.shown)
		if err != nil {
			t.Fatal(err)
		}
		model += len(b)
		if len(tool.Output.Properties) == 0 {
			t.Errorf("the output of %s has nothing", tool.Name)
		}
		hollow(t, tool.Name, tool.Output)
	}
	count := len(list.Result.Tools)
	t.Logf("%d tools in %d bytes, of which a model sees %d", count, len(sent), model)
	if count == 0 || count > 24 || model > 15_000 || len(sent) > 32_000 {
		t.Errorf("%d tools in %d bytes, of which a model sees %d; the bounds are 24, 32 kB and 15 kB", count, len(sent), model)
	}
}

// hollow finds what a schema says nothing of.
func hollow(t *testing.T, at string, s *jsonschema.Schema) {
	t.Helper()
	switch {
	case s.Type == "object" && len(s.Properties) == 0 && s.AdditionalProperties == nil, s.Type == "array" && s.Items == nil, s.Type == "":
		t.Errorf("%s says nothing of what it is", at)
	}
	for name, property := range s.Properties {
		hollow(t, at+"."+name, property)
	}
	if s.Items != nil {
		hollow(t, at+"[]", s.Items)
	}
}
