package tools

import (
	"context"
	"strings"
	"testing"

	"pixels/sandbox/manager"
)

// A fault in one call ends no other, nor the server.
func TestAPanicInACallIsItsResult(t *testing.T) {
	o := NewOperations(t.Context())
	r, id := o.do(t.Context(), Session{Caller: manager.Agent("alice")}, "exec", func(context.Context) Result { panic("a fault") })
	if id != "" || !r.Failed || !strings.Contains(r.Text, "a fault") {
		t.Errorf("the result is %+v, %s", r, id)
	}
	if r, _ := o.do(t.Context(), Session{Caller: manager.Agent("alice")}, "exec", func(context.Context) Result { return Result{Text: "fine"} }); r.Text != "fine" {
		t.Errorf("the next one is %+v", r)
	}
	o.Wait()
}
