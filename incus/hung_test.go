package incus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
	"pixels/tools"
)

// hungCalls are the calls that TestAHungIncusHangsNobody makes while Incus is stopped.
var hungCalls = map[string]string{
	"create_sandbox":     `{"name": "new"}`,
	"clone_sandbox":      `{"source": "box:ready", "count": 2, "command": "true"}`,
	"list_sandboxes":     `{}`,
	"set_sandbox_state":  `{"name": "paused", "state": "stopped"}`,
	"extend_sandbox":     `{"name": "box", "ttl": "2h"}`,
	"rename_sandbox":     `{"name": "box", "to": "other"}`,
	"resize_sandbox":     `{"name": "box", "cpu": 1}`,
	"destroy_sandbox":    `{"names": ["old"]}`,
	"create_checkpoint":  `{"name": "box", "label": "later"}`,
	"list_checkpoints":   `{"name": "box"}`,
	"restore_checkpoint": `{"name": "other", "label": "ready"}`,
	"delete_checkpoint":  `{"name": "box", "label": "spare"}`,
	"exec":               `{"name": "box", "command": "true", "timeout": 2}`, // in a session that waits
	"wait":               `{"ids": ["RUN"], "timeout": 5}`,
	"read_file":          `{"name": "box", "path": "/etc/hostname"}`,
	"write_file":         `{"name": "box", "path": "x", "content": "x"}`,
	"edit_file":          `{"name": "box", "path": "/etc/hosts", "old_text": "box", "new_text": "bux"}`,
	"list_files":         `{"name": "box", "path": "/"}`,
	"copy_files":         `{"name": "box", "direction": "in", "host_path": "/etc/hostname", "path": "x"}`,
	"allow_domain":       `{"name": "box", "domains": ["example.com"], "reason": "x"}`,
	"deny_domain":        `{"name": "box", "domains": ["example.com"]}`,
	"egress":             `{"name": "box"}`,
	"mint_token":         `{"name": "NEW"}`,
}

// hung is a set of sandboxes with their tools, on an Incus that is about to hang.
type hung struct {
	*Backend
	session tools.Session
	run     string
}

func newHung(t *testing.T) *hung {
	t.Helper()
	c := realBackend(t).config
	c.limit = 3 * time.Second
	h := &hung{Backend: openBackend(t, c)}
	owner := fmt.Sprintf("test-hung-%d", os.Getpid())
	rules := sandboxtest.Policy(t, "[files]\nhost_folders = [\"/etc\"]\n[egress]\nallow = [\"example.com\"]")
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	m := manager.New(h.Backend, manager.Defaults{Egress: egress.Allowlist, Image: c.Image, Policy: rules, Store: store})
	operations := tools.NewOperations(t.Context())
	h.session = tools.Session{Manager: m, Operations: operations, Caller: manager.Agent(owner)}
	if _, err := store.CreateToken(ledger.Token{Name: owner}, func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if h.session.Caller.Caps, err = store.Caps(owner); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range ofOwner(t, h.Backend, owner) {
			_ = h.Destroy(context.Background(), s.Name)
		}
		h.background.Wait()
		if left := ofOwner(t, h.Backend, owner); len(left) != 0 {
			t.Errorf("left are %v", left)
		}
	})
	for _, name := range []string{"box", "other", "paused", "old"} {
		h.must(t, "create_sandbox", fmt.Sprintf(`{"name": %q}`, name))
	}
	for _, at := range []string{`{"name": "box", "label": "ready"}`, `{"name": "box", "label": "spare"}`, `{"name": "other", "label": "ready"}`} {
		h.must(t, "create_checkpoint", at)
	}
	h.must(t, "set_sandbox_state", `{"name": "paused", "state": "paused"}`)
	r := h.must(t, "exec", `{"name": "box", "command": "sleep 100", "background": true}`)
	text, err := json.Marshal(r.Structured)
	var started struct {
		Run string `json:"operation"`
	}
	if err == nil {
		err = json.Unmarshal(text, &started)
	}
	if h.run = started.Run; err != nil || h.run == "" {
		t.Fatalf("no run in %s: %v", text, err)
	}
	return h
}

func (h *hung) call(ctx context.Context, tool, arguments string) tools.Result {
	for _, t := range tools.All() {
		if t.Name == tool {
			return t.Call(ctx, h.session, json.RawMessage(strings.NewReplacer("RUN", h.run, "NEW", strings.ToLower("w"+rand.Text()[:8])).Replace(arguments)))
		}
	}
	return tools.Result{Failed: true, Text: "there is no tool " + tool}
}

func (h *hung) must(t *testing.T, tool, arguments string) tools.Result {
	t.Helper()
	r := h.call(t.Context(), tool, arguments)
	if r.Failed {
		t.Fatalf("%s %s: %s", tool, arguments, r.Text)
	}
	return r
}

// all makes each tool's call at once, and returns what they answer. Each has to within the limit.
func (h *hung) all(t *testing.T, limit time.Duration) map[string]tools.Result {
	t.Helper()
	var mu sync.Mutex
	answered := map[string]tools.Result{}
	for _, tool := range tools.All() {
		arguments, known := hungCalls[tool.Name]
		if !known {
			t.Fatalf("the test has no call of %s", tool.Name)
		}
		go func() {
			start := time.Now()
			r := h.call(context.Background(), tool.Name, arguments)
			t.Logf("%s, after %.1f s: failed %v: %s", tool.Name, time.Since(start).Seconds(), r.Failed, r.Text)
			mu.Lock()
			defer mu.Unlock()
			answered[tool.Name] = r
		}()
	}
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		got := len(answered)
		mu.Unlock()
		if got == len(tools.All()) {
			return answered
		}
		if time.Now().After(end) {
			for _, tool := range tools.All() {
				mu.Lock()
				if _, ok := answered[tool.Name]; !ok {
					t.Errorf("%s has not answered within %s", tool.Name, limit)
				}
				mu.Unlock()
			}
			t.FailNow()
		}
	}
}

// hangs makes each tool's call, which must fail in words; but those which may succeed by what is known.
func (h *hung) hangs(t *testing.T, may ...string) {
	t.Helper()
	for tool, r := range h.all(t, 30*time.Second) {
		if !r.Failed {
			if !slices.Contains(may, tool) {
				t.Errorf("%s succeeds: %s", tool, r.Text)
			}
			continue
		}
		if !strings.Contains(r.Text, "Incus does not answer") || strings.Contains(r.Text, "context ") || strings.Contains(r.Text, "http") {
			t.Errorf("%s does not say in words what is wrong: %s", tool, r.Text)
		}
	}
}

func signal(t *testing.T, pid int, s unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, s); err != nil {
		t.Error(err)
	}
}

// An Incus that takes calls and answers none hangs no tool, and nothing else; once it goes on, so does all work.
func TestAHungIncusHangsNobody(t *testing.T) {
	h := newHung(t)
	h.must(t, "exec", hungCalls["exec"])
	soon(t, "what is known of the sandboxes is up to date", func() bool {
		h.must(t, "list_sandboxes", `{}`)
		h.cache.mu.Lock()
		defer h.cache.mu.Unlock()
		return h.cache.live && h.cache.known != nil && len(h.cache.changed) == 0
	})
	pid := incusd(t)
	stop := func() { signal(t, pid, unix.SIGSTOP) }
	goOn := func() { signal(t, pid, unix.SIGCONT) }
	defer goOn()
	stop()
	t.Log("what is known of the sandboxes is up to date")
	h.hangs(t, "list_sandboxes")
	t.Log("nothing is known of them any more")
	h.hangs(t)
	goOn()
	soon(t, "clones are made again", func() bool { return !h.call(t.Context(), "list_checkpoints", hungCalls["list_checkpoints"]).Failed })
	// In the middle of what it does.
	made := make(chan tools.Result, 1)
	go func() {
		made <- h.call(context.Background(), "clone_sandbox", `{"source": "box:ready", "names": ["c1", "c2", "c3"]}`)
	}()
	time.Sleep(150 * time.Millisecond)
	stop()
	select {
	case r := <-made:
		t.Logf("stopped in the middle: failed %v: %s", r.Failed, r.Text)
	case <-time.After(time.Minute):
		t.Error("a call that was under way has not ended within a minute")
	}
	third := openBackend(t, h.config)
	third.later(func(ctx context.Context) { _ = third.remove(ctx, "pixels-none") })
	start := time.Now()
	third.Close()
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("to close it takes %s", took)
	}
	goOn()
	soon(t, "commands run again", func() bool { return !h.call(t.Context(), "exec", hungCalls["exec"]).Failed })
	h.must(t, "list_checkpoints", hungCalls["list_checkpoints"])
	h.must(t, "set_sandbox_state", `{"name": "paused", "state": "running"}`)
	h.must(t, "create_sandbox", `{"name": "after"}`)
	if r := h.must(t, "wait", hungCalls["wait"]); !strings.Contains(r.Text, "running") {
		t.Errorf("the run in the background: %s", r.Text)
	}
}

// The same of a gateway: each request ends, and what piled up is no burden once the gateway goes on.
func TestAHungGatewayHangsNobody(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	box := l.box(t, "one", egress.Allowlist, allowedName)
	before := l.wires.channel
	// Its first process only keeps the one that serves.
	pid := childOf(t, l.gatewayPID(t))
	signal(t, pid, unix.SIGSTOP)
	defer signal(t, pid, unix.SIGCONT)
	var own []egress.Grant
	for i := range 300 {
		rule, err := egress.ParseRule(fmt.Sprintf("a-name-of-some-length-%d.example.com", i))
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, egress.Grant{Rule: rule, From: "test"})
	}
	many := l.config.Presets.For(egress.Allowlist, own)
	ended := make(chan error, 100)
	for range cap(ended) {
		go func() {
			_, err := l.wires.ask(context.Background(), gateway.Request{Op: gateway.Set, Sandbox: box.ID, Policy: &many})
			ended <- err
		}()
	}
	late := time.After(answerTime + 5*time.Second)
	for range cap(ended) {
		select {
		case err := <-ended:
			if err == nil {
				t.Fatal("a gateway that is stopped answers")
			}

		case <-late:
			t.Fatal("requests to a gateway that is stopped have not ended")
		}
	}
	select {
	case <-before.Done():
	default:
		t.Error("the channel that gave no answer is kept")
	}
	e, err := l.Egress(t.Context(), box.ID)
	if err != nil || e.Enforced || !strings.Contains(e.Why, "the gateway does not answer") {
		t.Errorf("the egress: %+v, %v", e, err)
	}
	if err := l.Destroy(t.Context(), l.box(t, "none", egress.None).ID); err != nil {
		t.Errorf("a sandbox that needs no gateway: %v", err)
	}
	signal(t, pid, unix.SIGCONT)
	soon(t, "it enforces what the keys say", func() bool {
		l.sweepWires(t)
		e, err := l.Egress(t.Context(), box.ID)
		return err == nil && e.Enforced
	})
	if said := l.try(t, "one", "tcp", allowedName+":80", "-host", allowedName); !strings.Contains(said, "200 OK") {
		t.Errorf("its way out: %s", said)
	}
}
