package server

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// The official TypeScript clients play the main job by HTTP and SSE, in each era that they speak there.
func TestTheTypeScriptClientsPlayTheJob(t *testing.T) {
	cache, err := filepath.Abs("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	sdks := map[string]string{"1": "conformance/node_modules/@modelcontextprotocol/sdk", "2": "inspector/node_modules/@modelcontextprotocol/client"}
	for _, c := range []struct{ version, era, transport, path string }{
		{"1", "legacy", "http", mcpPath}, {"1", "legacy", "sse", ssePath},
		{"2", "legacy", "http", mcpPath}, {"2", "2026-07-28", "http", mcpPath}, {"2", "legacy", "sse", ssePath},
	} {
		t.Run("version "+c.version+" "+c.era+" "+c.transport, func(t *testing.T) {
			sdk := filepath.Join(cache, sdks[c.version])
			if _, err := os.Stat(sdk); err != nil {
				t.Skip("no TypeScript client here: `make test` installs it, with the Inspector and the conformance suite")
			}
			t.Parallel()
			s := serveHTTP(t)
			secret := s.token(t, "worker", policy.Limits{})
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(cache, "inspector/node"), "testdata/job.mjs", sdk, c.version, c.era, c.transport, s.url+c.path, secret)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			var last string
			for lines.Scan() {
				if last = lines.Text(); !ledger.IsRequest(last) {
					continue
				}
				r, err := s.human.Request(last)
				if err == nil {
					_, err = s.human.Approve(ctx, manager.Approval{ID: last, Seen: s.human.Digest(r), By: "test"})
				}
				if err != nil {
					t.Error(err)
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Fatalf("%v: %s", err, stderr.String())
			}
			var got struct {
				Tools           int
				First, State    string
				Made, Destroyed int
			}
			if err := json.Unmarshal([]byte(last), &got); err != nil || got.Tools < 22 || got.First != "create_sandbox" || got.Made != 3 || got.State != "granted" || got.Destroyed != 4 {
				t.Errorf("%s, %v", last, err)
			}
		})
	}
}
