package tools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// calls are arguments with which each tool would do something, in the order of a sandbox's life.
var calls = map[string]string{
	"create_sandbox":     `{"name": "new", "egress": "allowlist", "allow": ["example.com"]}`,
	"clone_sandbox":      `{"source": "box:one", "count": 2, "command": "true"}`,
	"list_sandboxes":     `{}`,
	"set_sandbox_state":  `{"name": "box", "state": "paused"}`,
	"extend_sandbox":     `{"name": "box", "ttl": "2h"}`,
	"rename_sandbox":     `{"name": "box", "to": "other"}`,
	"resize_sandbox":     `{"name": "box", "cpu": 1}`,
	"destroy_sandbox":    `{"names": ["box"]}`,
	"create_checkpoint":  `{"name": "box", "label": "two"}`,
	"list_checkpoints":   `{"name": "box"}`,
	"restore_checkpoint": `{"name": "box", "label": "one"}`,
	"delete_checkpoint":  `{"name": "box", "label": "one"}`,
	"exec":               `{"name": "box", "command": "true"}`,
	"wait":               `{"ids": ["box.abcdefgh"]}`,
	"read_file":          `{"name": "box", "path": "/etc/hostname"}`,
	"write_file":         `{"name": "box", "path": "x", "content": "y"}`,
	"edit_file":          `{"name": "box", "path": "/etc/hostname", "old_text": "box", "new_text": "b"}`,
	"list_files":         `{"name": "box"}`,
	"copy_files":         `{"name": "box", "direction": "out", "host_path": "x", "path": "/etc/hostname"}`,
	"allow_domain":       `{"name": "box", "domains": ["example.com"], "reason": "to try"}`,
	"deny_domain":        `{"name": "box", "domains": ["example.com"]}`,
	"egress":             `{"name": "box", "mode": "none"}`,
	"mint_token":         `{"name": "worker"}`,
}

// watched is a backend that takes down what it is called for, but for what a caller may see of its own.
type watched struct {
	sandbox.Backend
	mu   sync.Mutex
	seen []string
}

func (w *watched) saw(call string) { w.mu.Lock(); w.seen = append(w.seen, call); w.mu.Unlock() }

func (w *watched) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	w.saw("Create")
	return w.Backend.Create(ctx, s)
}
func (w *watched) Destroy(ctx context.Context, id string) error {
	w.saw("Destroy")
	return w.Backend.Destroy(ctx, id)
}
func (w *watched) SetState(ctx context.Context, id string, s sandbox.State) error {
	w.saw("SetState")
	return w.Backend.SetState(ctx, id, s)
}
func (w *watched) Exec(ctx context.Context, id string, c sandbox.Command) (int, error) {
	w.saw("Exec")
	return w.Backend.Exec(ctx, id, c)
}
func (w *watched) OpenFiles(ctx context.Context, id string) (sandbox.Files, error) {
	w.saw("OpenFiles")
	return w.Backend.OpenFiles(ctx, id)
}
func (w *watched) SetEgress(ctx context.Context, id string, e sandbox.EgressEdit) (int, error) {
	w.saw("SetEgress")
	return w.Backend.SetEgress(ctx, id, e)
}

// forbidding is a backend on which nothing may be called but what a caller may see of its own: all else panics.
type forbidding struct {
	sandbox.Backend // nil
	reads           sandbox.Backend
}

func (f forbidding) List(ctx context.Context, owner string) ([]sandbox.Sandbox, error) {
	return f.reads.List(ctx, owner)
}
func (f forbidding) Tree(ctx context.Context, top string, fresh bool) ([]sandbox.Sandbox, error) {
	return f.reads.Tree(ctx, top, fresh)
}
func (f forbidding) Get(ctx context.Context, owner, name string) (sandbox.Sandbox, error) {
	return f.reads.Get(ctx, owner, name)
}
func (f forbidding) Checkpoints(ctx context.Context, id string) ([]sandbox.Checkpoint, error) {
	return f.reads.Checkpoints(ctx, id)
}
func (f forbidding) Relatives(ctx context.Context, owner, lineage string) ([]sandbox.Sandbox, error) {
	return f.reads.Relatives(ctx, owner, lineage)
}
func (f forbidding) CheckpointsCost(ctx context.Context) bool { return f.reads.CheckpointsCost(ctx) }
func (f forbidding) CheckpointCost(ctx context.Context, id string) (int64, error) {
	return f.reads.CheckpointCost(ctx, id)
}

// boxed is a backend with a sandbox "box" of each owner, with a checkpoint "one".
func boxed(t *testing.T, owners ...string) *sandboxtest.Memory {
	t.Helper()
	b := sandboxtest.NewMemory()
	m := manager.New(b, manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist})
	for _, owner := range owners {
		_, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "box"})
		if err == nil {
			_, err = m.CreateCheckpoint(t.Context(), manager.Agent(owner), "box", "one", "")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func sessionOver(b sandbox.Backend, p *policy.Policy, owner string) Session {
	return Session{
		Manager:    manager.New(b, manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Policy: p}),
		Operations: NewOperations(context.Background()), Caller: manager.Agent(owner),
	}
}

func TestThePolicyKnowsTheTools(t *testing.T) {
	var names []policy.Verb
	for _, tool := range All() {
		names = append(names, policy.Verb(tool.Name))
		if calls[tool.Name] == "" {
			t.Errorf("no test calls %s", tool.Name)
		}
	}
	if !slices.Equal(names, policy.Verbs) {
		t.Errorf("the policy has %v, and there are %v", policy.Verbs, names)
	}
}

// Each tool is switched off, and then nothing of the backend may be called: it would panic.
func TestNoToolReachesABackendUnvetted(t *testing.T) {
	for _, tool := range All() {
		t.Run(tool.Name, func(t *testing.T) {
			host := t.TempDir()
			b := boxed(t, "alice", "bob")
			off := sandboxtest.Policy(t, fmt.Sprintf("[files]\nhost_folders = [%q]\n[owners.alice.tools]\noff = [%q]", host, tool.Name))
			s := sessionOver(forbidding{reads: b}, off, "alice")
			s.Caller.Caps = &policy.Caps{Holder: "alice"}
			r := tool.Call(t.Context(), s, json.RawMessage(calls[tool.Name]))
			if !r.Failed || !strings.Contains(r.Text, "owners.alice.tools.off") {
				t.Fatalf("answered %+v", r)
			}
			// The other owner's is on, and reaches it.
			s = sessionOver(b, off, "bob")
			s.Caller.Caps = &policy.Caps{Holder: "bob"}
			if r := tool.Call(t.Context(), s, json.RawMessage(calls[tool.Name])); strings.Contains(r.Text, "tools.off") {
				t.Fatalf("another owner was answered %+v", r)
			}
		})
	}
}

// What a policy denies for its arguments changes nothing either; a trial says the same and does as little.
func TestVerdictsOverEveryToolAndOwner(t *testing.T) {
	const rules = `
[quota]
max_lease = "30m"
[exec]
root = false
[egress]
modes = ["agent"]
never = ["example.com"]
[create]
images = []
[owners.free.quota]
max_lease = "30d"
[owners.free.exec]
root = true
[owners.free.egress]
modes = ["none", "agent", "allowlist", "unrestricted"]
never = []
allow = ["example.com"]
[owners.full.quota]
sandboxes = 1
checkpoints = 1
[owners.full.egress]
modes = ["allowlist"]
`
	p := sandboxtest.Policy(t, rules)
	for _, c := range []struct{ tool, arguments, owner, rule string }{
		{"create_sandbox", `{"egress": "allowlist", "ttl": "20m"}`, "alice", "egress.modes"},
		{"create_sandbox", `{"egress": "allowlist", "ttl": "20m"}`, "free", ""},
		{"create_sandbox", `{"egress": "agent", "ttl": "2h"}`, "alice", "quota.max_lease"},
		{"create_sandbox", `{"egress": "agent", "allow": ["example.com"], "ttl": "20m"}`, "alice", "egress.never"},
		{"create_sandbox", `{"egress": "agent", "allow": ["example.com"], "ttl": "20m"}`, "free", ""},
		{"create_sandbox", `{"image": "pixels/other", "egress": "agent", "ttl": "20m"}`, "alice", "create.images"},
		{"create_sandbox", `{"egress": "agent", "from": "box:one", "ttl": "20m"}`, "alice", ""},
		{"create_sandbox", `{"from": "box:one", "ttl": "20m"}`, "alice", "egress.modes"}, // that of the source, which is older than the policy
		{"create_sandbox", `{"ttl": "20m"}`, "full", "owners.full.quota.sandboxes"},
		{"clone_sandbox", `{"source": "box:one", "ttl": "20m"}`, "full", "owners.full.quota.sandboxes"},
		{"clone_sandbox", `{"source": "box:one", "count": 3, "ttl": "20m"}`, "free", ""},
		{"clone_sandbox", `{"source": "box:one", "egress": "none", "ttl": "20m"}`, "alice", "egress.modes"},
		{"create_checkpoint", `{"name": "box"}`, "full", "owners.full.quota.checkpoints"},
		{"create_checkpoint", `{"name": "box"}`, "alice", ""},
		{"extend_sandbox", `{"name": "box", "ttl": "40m"}`, "alice", "quota.max_lease"},
		{"extend_sandbox", `{"name": "box", "ttl": "40m"}`, "free", ""},
		{"exec", `{"name": "box", "command": "true", "user": "root"}`, "alice", "exec.root"},
		{"exec", `{"name": "box", "command": "true", "user": "0"}`, "alice", "exec.root"},
		{"exec", `{"name": "box", "command": "true", "user": "root"}`, "free", ""},
		{"copy_files", `{"name": "box", "direction": "in", "host_path": "/etc/passwd", "path": "x"}`, "free", "files.host_folders"},
		{"allow_domain", `{"name": "box", "domains": ["example.com"], "reason": "x"}`, "alice", "egress.never"},
		{"allow_domain", `{"name": "box", "domains": ["example.com"], "reason": "x"}`, "free", ""},
		{"egress", `{"name": "box", "mode": "unrestricted"}`, "alice", "egress.modes"},
		{"egress", `{"name": "box", "mode": "unrestricted"}`, "free", ""},
		{"egress", `{"name": "box"}`, "alice", ""},
	} {
		t.Run(c.tool+" "+c.owner+" "+c.arguments, func(t *testing.T) {
			w := &watched{Backend: boxed(t, "alice", "free", "full")}
			s := sessionOver(w, p, c.owner)
			i := slices.IndexFunc(All(), func(tool Tool) bool { return tool.Name == c.tool })
			trial := s
			trial.Caller.Trial = true
			v, err := Verdict(t.Context(), trial, c.tool, json.RawMessage(c.arguments))
			if want := map[bool]policy.Decision{true: policy.Allow, false: policy.Deny}[c.rule == ""]; err != nil || v.Decision != want || v.Rule != c.rule {
				t.Errorf("the trial says %+v, %v; want %q", v, err, c.rule)
			}
			if len(w.seen) > 0 {
				t.Errorf("the trial did %v", w.seen)
			}
			r := All()[i].Call(t.Context(), s, json.RawMessage(c.arguments))
			if c.rule == "" {
				if r.Failed {
					t.Fatal(r.Text)
				}
				return
			}
			if !r.Failed || !strings.Contains(r.Text, "denied by the policy ("+c.rule+")") || len(w.seen) > 0 {
				t.Fatalf("%+v; the backend was called for %v", r, w.seen)
			}
		})
	}
}

func TestSideBySideStaysWithinTheQuota(t *testing.T) {
	s := sessionOver(boxed(t), sandboxtest.Policy(t, "[quota]\nsandboxes = 5"), "alice")
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.Manager.Create(t.Context(), manager.Agent("alice"), manager.CreateRequest{}) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		switch {
		case err == nil:
			made++
		case !errors.Is(err, sandbox.ErrDenied):
			t.Error(err)
		}
	}
	if list, err := s.Manager.List(t.Context(), manager.Agent("alice"), manager.ListRequest{}); err != nil || made != 5 || len(list.Sandboxes) != 5 {
		t.Errorf("made %d of 5, and there are %d, %v", made, len(list.Sandboxes), err)
	}
}

func TestWhatWasDoneIsOnRecord(t *testing.T) {
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := sessionOver(boxed(t, "alice"), nil, "alice")
	s.Manager = manager.New(boxed(t, "alice"), manager.Defaults{Image: sandboxtest.Image, Store: store, Policy: sandboxtest.Policy(t, "[tools]\noff = [\"write_file\"]")})
	s.Caller.Call = ledger.NewCall()
	for _, tool := range All() {
		if slices.Contains([]string{"exec", "write_file"}, tool.Name) {
			arguments := strings.Replace(calls[tool.Name], `"true"`, `"echo $PIXELS_CALL"`, 1)
			if r := tool.Call(t.Context(), s, json.RawMessage(arguments)); tool.Name == "exec" && !strings.Contains(r.Text, s.Caller.Call) {
				t.Errorf("a command does not know its call: %s", r.Text)
			}
		}
	}
	var got []ledger.Record
	for end := time.Now().Add(10 * time.Second); len(got) < 3 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got, err = store.Records(ledger.Query{Call: s.Caller.Call}); err != nil {
			t.Fatal(err)
		}
	}
	call, code := s.Caller.Call, 0
	want := []ledger.Record{
		{Kind: ledger.Decided, Owner: "alice", Sandbox: "box", Channel: "mcp", Call: call, Tool: "exec", Verdict: "allow", Count: 1},
		{Kind: ledger.Executed, Owner: "alice", Sandbox: "box", Channel: "mcp", Call: call, Tool: "exec", Target: "echo $PIXELS_CALL", Count: 1, Code: &code},
		{Kind: ledger.Decided, Owner: "alice", Sandbox: "box", Channel: "mcp", Call: call, Tool: "write_file", Verdict: "deny", Rule: "tools.off", Count: 1},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(ledger.Record{}, "ID", "At", "Duration", "Lineage", "Detail", "Target")); diff != "" {
		t.Errorf("the record (-want +got):\n%s", diff)
	}
	if len(got) == 3 && got[1].Target != "echo $PIXELS_CALL" {
		t.Errorf("the command on record is %q", got[1].Target)
	}
}
