package server

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
	"pixels/tools"
)

// serving has the test's own program be a server over a backend in memory, with a sandbox "box".
const serving = "PIXELS_TEST_SERVES"

func serveMemory(dir string) error {
	ctx := context.Background()
	store, err := ledger.Open(filepath.Join(dir, "pixels.db"), func(error) {})
	if err != nil {
		return err
	}
	m := manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Policy: policy.Shipped(), Store: store})
	if _, err := m.Create(ctx, manager.Agent("tester"), manager.CreateRequest{Name: "box"}); err != nil {
		return err
	}
	session := tools.Session{Manager: m, Operations: tools.NewOperations(ctx), Caller: manager.Agent("tester")}
	err = New("test", session, zerolog.Nop()).Serve(ctx, os.Stdin, os.Stdout)
	_ = store.Close()
	return err
}

// The official TypeScript client, in both eras of the protocol.
func TestTheTypeScriptClientAnswers(t *testing.T) {
	cache, err := filepath.Abs("../../.cache/inspector")
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(cache, "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "@modelcontextprotocol/client")); err != nil {
		t.Skip("no TypeScript client here: `make test` installs it, with the Inspector")
	}
	for name, c := range map[string]struct {
		answer  string
		calls   string
		state   ledger.RequestState
		dialogs int
	}{
		"a yes":              {`{"action": "accept", "content": {"choice": "1 hour"}}`, "1", ledger.RequestGranted, 1},
		"for the connection": {`{"action": "accept", "content": {"choice": "this connection"}}`, "1", ledger.RequestGranted, 1},
		"a no":               {`{"action": "accept", "content": {"choice": "deny"}}`, "1", ledger.RequestDenied, 1},
		"defaults filled in": {"defaults", "3", ledger.RequestOpen, 1},
		"declined":           {`{"action": "decline"}`, "30", ledger.RequestOpen, 1},
		"cancelled":          {`{"action": "cancel"}`, "3", ledger.RequestOpen, 1},
	} {
		for _, era := range []string{"legacy", "2026-07-28"} {
			t.Run(name+" "+era, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, filepath.Join(cache, "node"), "testdata/client.mjs", modules, era, c.answer, c.calls, os.Args[0])
				cmd.Env = append(os.Environ(), serving+"="+dir)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				b, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v: %s", err, stderr.String())
				}
				var got struct {
					Dialogs int
					States  []string
					Schema  struct {
						Required   []string
						Properties map[string]map[string]any
					}
				}
				if err := json.Unmarshal(b, &got); err != nil {
					t.Fatalf("%s: %v", b, err)
				}
				choice := got.Schema.Properties["choice"]
				if _, has := choice["default"]; has || len(got.Schema.Required) != 1 || len(got.Schema.Properties) != 1 || len(choice["enum"].([]any)) != 4 {
					t.Errorf("the form is %+v", got.Schema)
				}
				store, err := ledger.Open(filepath.Join(dir, "pixels.db"), func(err error) { t.Error(err) })
				if err != nil {
					t.Fatal(err)
				}
				defer store.Close()
				list, err := store.Requests("tester", 0)
				if err != nil || len(list) != 1 || list[0].State != c.state || got.Dialogs != c.dialogs {
					t.Errorf("%s: %+v, %v", b, list, err)
				}
			})
		}
	}
}
