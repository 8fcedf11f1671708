package server

import (
	"errors"
	"strings"
	"testing"

	"pixels/internal/fault"
)

// Who asks for words for people has errors in them, and of their kind; and is no more than an owner.
func TestPeopleAreAnsweredInTheirWords(t *testing.T) {
	c := serve(t)
	if _, err := c.CallForPeople(t.Context(), "create_sandbox", map[string]any{"name": "box"}, nil); err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		tool      string
		arguments map[string]any
		kind      fault.Kind
		says      string
	}{
		{"create_sandbox", map[string]any{"name": "box"}, fault.Exists, "pixels-mcp destroy box"},
		{"create_sandbox", map[string]any{"name": "Box"}, fault.Invalid, "lower-case letters"},
		{"list_checkpoints", map[string]any{"name": "nobody"}, fault.NotFound, "there are: box"},
		{"clone_sandbox", map[string]any{"source": "box"}, fault.Invalid, "pixels-mcp checkpoint list"},
		{"create_sandbox", map[string]any{"nmae": "x"}, fault.Invalid, "did you mean"},
	} {
		_, err := c.CallForPeople(t.Context(), call.tool, call.arguments, nil)
		if !errors.Is(err, call.kind) || !strings.Contains(err.Error(), call.says) || strings.Contains(err.Error(), "_sandbox") {
			t.Errorf("%s %v: %v, want %s and %q", call.tool, call.arguments, err, call.kind, call.says)
		}
		if err := c.Call(t.Context(), call.tool, call.arguments, nil); errors.Is(err, call.kind) || strings.Contains(err.Error(), "pixels-mcp ") {
			t.Errorf("an agent's call of %s %v is answered %v", call.tool, call.arguments, err)
		}
	}
	var none struct{ Destroyed, Missing []string }
	if _, err := c.CallForPeople(t.Context(), "destroy_sandbox", map[string]any{"names": []string{"box", "nobody"}}, &none); err != nil || len(none.Destroyed) != 1 || len(none.Missing) != 1 {
		t.Errorf("%+v, %v", none, err)
	}
}
