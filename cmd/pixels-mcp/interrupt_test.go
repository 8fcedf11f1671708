package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pixels/internal/view"
)

// Ctrl-C at any moment leaves nothing half-made, and the command says what became of it.
func TestCtrlCLeavesNothingHalfMade(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "undo")
	p.does("create", "base", "--egress", "none")
	p.does("checkpoint", "create", "base", "--label", "ready")
	states := func() map[string]string {
		var all []view.Sandbox
		if err := json.Unmarshal([]byte(p.does("list", "--json")), &all); err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, s := range all {
			out[s.Name] = string(s.State)
		}
		return out
	}
	// How long the whole takes, so that the moments lie within it.
	begun := time.Now()
	p.does("create", "first", "--from", "base:ready")
	whole := time.Since(begun)
	const moments = 4
	for i := range moments {
		after := whole * time.Duration(i+1) / moments
		for _, args := range [][]string{
			{"create", "x", "y", "--from", "base:ready"}, {"clone", "base:ready", "x", "y", "z"}, {"checkpoint", "restore", "base", "ready"}, {"destroy", "--force", "first"},
		} {
			if args[0] == "destroy" {
				p.types("create", "first", "--egress", "none") // it may be there
			}
			var said bytes.Buffer
			c := p.command(t.Context(), args...)
			c.Stdout, c.Stderr = &said, &said
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			if err := c.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			_ = c.Wait() // the exit code tells
			code := c.ProcessState.ExitCode()
			if code == -1 { // before it listened for the signal, when it had done nothing
				code = exitInterrupted
			} else if code != 0 && (code != exitInterrupted || !strings.Contains(said.String(), "interrupted")) {
				t.Errorf("%v, after %s: exit code %d\n%s", args, after, code, &said)
			}
			now := states()
			for name, state := range now {
				if state != "running" {
					t.Errorf("%v, after %s: %s is %s\n%s", args, after, name, state, &said)
				}
			}
			for _, name := range []string{"x", "y", "z"} {
				if _, there := now[name]; there && strings.Contains(said.String(), name+": not made") {
					t.Errorf("%v, after %s: %s is there\n%s", args, after, name, &said)
				}
			}
			if _, there := now["base"]; !there {
				t.Fatalf("%v, after %s: base is gone\n%s", args, after, &said)
			}
			p.types("destroy", "--force", "x", "y", "z")
		}
	}
	if out, err := exec.Command(p.program, "--owner", p.owner, "exec", "base", "true").CombinedOutput(); err != nil {
		t.Errorf("in base nothing runs: %s", out)
	}
}
