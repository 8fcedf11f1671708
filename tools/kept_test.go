package tools

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixels/egress"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// What became of an operation is told by any server, whether or not anybody asked before, and after the one in which it ran was ended.
func TestAnOperationIsKnownToOtherServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pixels.db")
	backend := sandboxtest.NewMemory()
	server := func() (s Session, end func()) {
		t.Helper()
		store, err := ledger.Open(path, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		s = Session{
			Manager:    manager.New(backend, manager.Defaults{Image: sandboxtest.Image, Egress: egress.None, Store: store}),
			Operations: NewOperations(ctx), Caller: manager.Agent("alice"),
		}
		s.Operations.limit = 50 * time.Millisecond
		return s, func() {
			cancel()
			s.Operations.Wait()
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	first, end := server()
	must(t, first, "create_sandbox", `{"name":"base"}`)
	must(t, first, "create_checkpoint", `{"name":"base","label":"ready"}`)
	id, _ := must(t, first, "clone_sandbox", `{"source":"base:ready","count":2,"command":"sleep 0.5; hostname"}`)["operation"].(string)
	if !strings.HasPrefix(id, "op-") {
		t.Fatalf("no operation: %q", id)
	}
	second, endSecond := server()
	if got := waited(t, second, `{"ids":["`+id+`"],"timeout":0}`); got["state"] != "running" {
		t.Errorf("under way: %v", got)
	}
	got := waited(t, second, `{"ids":["`+id+`"],"timeout":10}`)
	if result, _ := got["result"].(map[string]any); got["state"] != "ended" || result["made"] != 2.0 {
		t.Errorf("at its end: %v", got)
	}
	stranger := second
	stranger.Caller = manager.Agent("bob")
	if r := Call(t.Context(), stranger, "wait", []byte(`{"ids":["`+id+`"]}`)); !r.Failed {
		t.Errorf("another owner is told %+v", r)
	}
	// One that is cancelled from elsewhere, and one that is ended with its server.
	long := func() string {
		id, _ := must(t, first, "clone_sandbox", `{"source":"base:ready","count":1,"command":"sleep 60"}`)["operation"].(string)
		return id
	}
	cancelled, ended := long(), long()
	if got := waited(t, second, `{"ids":["`+cancelled+`"],"timeout":20,"cancel":true}`); got["state"] != "ended" {
		t.Errorf("cancelled from elsewhere: %v", got)
	}
	end()
	if got := waited(t, second, `{"ids":["`+id+`"],"timeout":0}`); got["state"] != "ended" || got["result"] == nil {
		t.Errorf("after its server: %v", got)
	}
	// What was made by then is told, and what became of the rest.
	got = waited(t, second, `{"ids":["`+ended+`"],"timeout":0}`)
	if result, _ := got["result"].(map[string]any); got["state"] != "ended" || result["failed"] != 1.0 || !strings.Contains(fmt.Sprint(result["clones"]), "cancel") {
		t.Errorf("ended with its server: %v", got)
	}
	endSecond()
}

// An operation ends with the right by which it was called.
func TestAnOperationEndsWithItsCallersRight(t *testing.T) {
	s, _ := session(t)
	over, end := context.WithCancel(context.Background())
	defer end()
	given := make(chan struct{})
	s.Hold = func() (context.Context, func()) { return over, func() { close(given) } }
	id, _ := must(t, s, "clone_sandbox", `{"source":"base:ready","count":1,"command":"sleep 60"}`)["operation"].(string)
	if got := waited(t, s, `{"ids":["`+id+`"],"timeout":0}`); got["state"] != "running" {
		t.Errorf("it does not go on: %v", got)
	}
	end()
	if got := waited(t, s, `{"ids":["`+id+`"],"timeout":10}`); got["state"] != "ended" {
		t.Errorf("it goes on: %v", got)
	}
	select {
	case <-given:
	case <-time.After(10 * time.Second):
		t.Error("the right is not given back")
	}
}
