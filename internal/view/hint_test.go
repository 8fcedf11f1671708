package view

import (
	"errors"
	"fmt"
	"testing"

	"pixels/internal/fault"
)

func TestEachReadsWhatToDoInTheirOwnWords(t *testing.T) {
	stopped := fault.New(fault.State, fault.Sandbox("box"), "is stopped", fault.Hint{Action: fault.StartSandbox, Name: "box"})
	cut := fault.New(fault.Denied, fault.Sandbox("box"), "has no network", fault.Hint{Action: fault.GiveNetworkBack, Name: "box", Value: "agent"})
	hides := &fault.Error{Kind: fault.Failed, Problem: "the host failed", Cause: errors.New("/var/lib/x: no space")}
	for _, c := range []struct {
		err  error
		to   Audience
		says string
	}{
		{stopped, Agent, `sandbox "box" is stopped; set_sandbox_state with the state running mends it`},
		{fmt.Errorf("exec: %w", stopped), Terminal, `exec: sandbox "box" is stopped; ` + "`pixels-mcp start box` mends it"},
		{cut, Page, "sandbox \"box\" has no network; `pixels-mcp network set box agent` gives it back"},
		{stopped, Member, `sandbox "box" is stopped; ` + "`pixels-mcp start box` mends it"},
		{cut, Member, "sandbox \"box\" has no network; only a human gives it back, with `pixels-mcp network set box agent`; go on without"},
		{hides, Terminal, "the host failed (/var/lib/x: no space)"},
		{hides, Member, "the host failed"},
		{errors.Join(stopped, stopped), Agent, "sandbox \"box\" is stopped\nsandbox \"box\" is stopped; set_sandbox_state with the state running mends it"},
		{errors.New("plain"), Agent, "plain"},
		{fault.New(fault.NotFound, fault.Sandbox("x"), "", fault.Hint{}), Agent, `sandbox "x" not found`},
	} {
		if got := Error(c.err, c.to); got != c.says {
			t.Errorf("to %d: %q, want %q", c.to, got, c.says)
		}
	}
	if err := fmt.Errorf("exec: %w", stopped); !errors.Is(err, fault.State) || errors.Is(err, fault.NotFound) {
		t.Error("its kind is not found in it")
	}
}
