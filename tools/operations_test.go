package tools

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixels/egress"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// session is one whose calls may last 50 ms, with a sandbox and a checkpoint.
func session(t *testing.T) (s Session, end context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s = Session{
		Manager:    manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.None}),
		Operations: NewOperations(ctx), Caller: manager.Agent("tester"),
	}
	s.Operations.limit = 50 * time.Millisecond
	t.Cleanup(func() {
		cancel()
		s.Operations.Wait()
	})
	must(t, s, "create_sandbox", `{"name":"base"}`)
	must(t, s, "create_checkpoint", `{"name":"base","label":"ready"}`)
	return s, cancel
}

// must calls a tool and returns its structured result.
func must(t *testing.T, s Session, tool, arguments string) map[string]any {
	t.Helper()
	out, _ := answer(t, s, tool, arguments)
	return out
}

// answer calls a tool and returns its structured result, and the text.
func answer(t *testing.T, s Session, tool, arguments string) (out map[string]any, text string) {
	t.Helper()
	for _, have := range All() {
		if have.Name != tool {
			continue
		}
		r := have.Call(t.Context(), s, json.RawMessage(arguments))
		if r.Failed {
			t.Fatalf("%s %s: %s", tool, arguments, r.Text)
		}
		b, err := json.Marshal(r.Structured)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		return out, r.Text
	}
	t.Fatalf("there is no tool %s", tool)
	return nil, ""
}

func waited(t *testing.T, s Session, arguments string) map[string]any {
	t.Helper()
	return must(t, s, "wait", arguments)["operations"].([]any)[0].(map[string]any)
}

func TestALongCallGoesOnAsAnOperation(t *testing.T) { synctest.Test(t, aLongCallGoesOnAsAnOperation) }

func aLongCallGoesOnAsAnOperation(t *testing.T) {
	s, _ := session(t)
	out := must(t, s, "clone_sandbox", `{"source":"base:ready","count":2,"command":"sleep 0.4; hostname"}`)
	id, _ := out["operation"].(string)
	if next, _ := out["next"].(string); len(out) != 2 || !strings.HasPrefix(id, "op-") || next != `wait with ids ["`+id+`"]` {
		t.Fatalf("the call answers %v", out)
	}
	if got := waited(t, s, `{"ids":["`+id+`"],"timeout":0}`); got["state"] != "running" {
		t.Errorf("under way it is %v", got)
	}
	got := waited(t, s, `{"ids":["`+id+`"]}`)
	result, _ := got["result"].(map[string]any)
	if got["state"] != "ended" || result["made"] != 2.0 || result["failed"] != 0.0 {
		t.Errorf("ended it is %v", got)
	}
	if again := waited(t, s, `{"ids":["`+id+`"]}`); again["state"] != "ended" {
		t.Errorf("asked again it is %v", again)
	}
	other := s
	other.Caller.Owner = "someone-else"
	if r := waitTool.Call(t.Context(), other, json.RawMessage(`{"ids":["`+id+`"]}`)); !r.Failed || !strings.Contains(r.Text, "not found") {
		t.Errorf("another owner sees %+v", r)
	}
}

func TestAnOperationIsCancelled(t *testing.T) { synctest.Test(t, anOperationIsCancelled) }

func anOperationIsCancelled(t *testing.T) {
	s, _ := session(t)
	id := must(t, s, "clone_sandbox", `{"source":"base:ready","command":"echo x >/tmp/begun; sleep 30; echo x >/tmp/ended"}`)["operation"].(string)
	start := time.Now()
	if got := waited(t, s, `{"ids":["`+id+`"],"cancel":true}`); got["state"] != "ended" || got["cancelled"] != true {
		t.Errorf("cancelled it is %v", got)
	}
	if took := time.Since(start); took >= 30*time.Second {
		t.Errorf("that took %s", took)
	}
}

func TestACallThatIsGivenUpEndsItsWork(t *testing.T) { synctest.Test(t, aCallThatIsGivenUpEndsItsWork) }

func aCallThatIsGivenUpEndsItsWork(t *testing.T) {
	s, _ := session(t)
	s.Operations.limit = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	cloneSandbox.Call(ctx, s, json.RawMessage(`{"source":"base:ready","command":"sleep 30"}`))
	if took := time.Since(start); took >= 30*time.Second {
		t.Errorf("it goes on for %s", took)
	}
}

func TestTheEndOfAServerEndsItsOperations(t *testing.T) {
	synctest.Test(t, theEndOfAServerEndsItsOperations)
}

func theEndOfAServerEndsItsOperations(t *testing.T) {
	s, end := session(t)
	must(t, s, "clone_sandbox", `{"source":"base:ready","command":"sleep 30"}`)
	end()
	ended := make(chan struct{})
	go func() {
		s.Operations.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("its work goes on")
	}
}

func TestOldOperationsAreForgotten(t *testing.T) {
	o := NewOperations(t.Context())
	done := make(chan struct{})
	close(done)
	var first string
	for i := range keptOperations + 5 {
		id := o.keep(&operation{owner: "o", done: done})
		if i == 0 {
			first = id
		}
	}
	if op := o.find("o", first); op != nil || len(o.byID) != keptOperations || len(o.order) != keptOperations {
		t.Errorf("%d are kept, the first: %v", len(o.byID), op != nil)
	}
}
