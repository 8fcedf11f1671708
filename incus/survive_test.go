package incus

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"pixels/egress"
	"pixels/sandbox"
)

// What commands do ends commands, and not the sandbox: its first process is not the one that the kernel ends where memory is short, and has
// all the threads that it needs before others may have taken what there is.
func TestASandboxOutlivesItsCommands(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	box := boxOf(t, b, sandbox.Spec{Name: "crowded", Egress: egress.None, Limits: sandbox.Limits{CPU: 1, Memory: 48 << 20, Processes: 1000}})
	const first = "cut -d' ' -f22 /proc/1/stat" // when it began
	began := sh(t, b, box.ID, first)
	if n, err := strconv.Atoi(sh(t, b, box.ID, "ls /proc/1/task | wc -l")); err != nil || n < 8 {
		t.Errorf("the first process begins with %d threads, %v", n, err)
	}
	if scores := sh(t, b, box.ID, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj"); scores != "0\n500" {
		t.Errorf("where memory is short the first process and a command are ended by %q", scores)
	}
	// Each of them is smaller than the first process.
	code, err := b.Exec(t.Context(), box.ID, sandbox.Command{Shell: "dash -c 'i=0; while [ $i -lt 600 ]; do sleep 3 & i=$((i + 1)); done; wait'", User: "pixel"})
	t.Logf("exit code %d, %v", code, err) // it may have been ended itself
	soon(t, "commands can be run again", func() bool {
		var out bytes.Buffer
		code, err := b.Exec(t.Context(), box.ID, sandbox.Command{Shell: first, User: "root", Stdout: &out})
		if err == nil && code == 0 && strings.TrimSpace(out.String()) != began {
			t.Fatalf("it was started anew: %s, and %s before", &out, began)
		}
		return err == nil && code == 0
	})
}
