package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixels/internal/oauth"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// The official TypeScript clients play the main job on stdin and stdout, by HTTP and SSE, in each era that they speak there, with a
// token, and with one that they ask a human for.
func TestTheTypeScriptClientsPlayTheJob(t *testing.T) {
	cache, err := filepath.Abs("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	sdks := map[string]string{"1": "conformance/node_modules/@modelcontextprotocol/sdk", "2": "inspector/node_modules/@modelcontextprotocol/client"}
	for _, c := range []struct{ version, era, transport, path, by string }{
		{"1", "legacy", "http", mcpPath, "token"}, {"1", "legacy", "sse", ssePath, "token"},
		{"2", "legacy", "http", mcpPath, "token"}, {"2", "2026-07-28", "http", mcpPath, "token"}, {"2", "legacy", "sse", ssePath, "token"},
		{"1", "legacy", "stdio", "", "its user"}, {"2", "legacy", "stdio", "", "its user"}, {"2", "2026-07-28", "stdio", "", "its user"},
		{"1", "legacy", "http", mcpPath, "OAuth"}, {"1", "legacy", "sse", ssePath, "OAuth"}, {"2", "2026-07-28", "http", mcpPath, "OAuth"},
	} {
		t.Run("version "+c.version+" "+c.era+" "+c.transport+" by "+c.by, func(t *testing.T) {
			sdk := filepath.Join(cache, sdks[c.version])
			if _, err := os.Stat(sdk); err != nil {
				t.Skip("no TypeScript client here: `make test` installs it, with the Inspector and the conformance suite")
			}
			t.Parallel()
			s := serveHTTP(t)
			secret, to := "", s.url+c.path
			switch c.by {
			case "its user":
				secret, to = "none", os.Args[0]
			case "token":
				secret = s.token(t, "worker", policy.Limits{})
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(cache, "inspector/node"), "testdata/job.mjs", sdk, c.version, c.era, c.transport, to, secret)
			cmd.Env = append(os.Environ(), serving+"="+t.TempDir())
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			var browser io.WriteCloser
			if err == nil {
				if browser, err = cmd.StdinPipe(); err == nil {
					err = cmd.Start()
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			var last string
			for lines.Scan() {
				last = lines.Text()
				if wish, ok := strings.CutPrefix(last, "human: "+s.url); ok {
					to := s.sent(t, wish)
					a, code, err := s.human.Connect(ctx, strings.TrimPrefix(to.Path, "/connect/"), ledger.Token{Name: "worker", Expires: time.Now().Add(time.Hour)})
					if err != nil {
						t.Fatal(err)
					}
					onward, _ := oauth.Back(a, oauth.Response{Code: code})
					fmt.Fprintln(browser, onward)
				}
				if !ledger.IsRequest(last) {
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
