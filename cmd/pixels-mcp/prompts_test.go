package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pixels/incus/incustest"
	"pixels/internal/server"
	"pixels/prompts"
)

// Each prompt is played on real sandboxes as it stands: its calls are made in their order, and all of them do what they say.
func TestPromptsArePlayed(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	sample := map[string]map[string]string{
		"spawn_workers": {"task": "count"}, "safe_experiment": {"sandbox": "box", "change": "a change"}, "egress_review": {"sandbox": "box"},
		"hand_over": {"sandbox": "box"}, "new_base": {"sandbox": "box"},
	}
	if len(prompts.All()) != len(sample) {
		t.Errorf("%d prompts are there, and %d are played", len(prompts.All()), len(sample))
	}
	for _, p := range prompts.All() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			c := start(t, self(t), fmt.Sprintf("test-prompt-%s-%d", strings.ReplaceAll(p.Name, "_", "-"), os.Getpid()))
			if err := c.Call(ctx, "create_sandbox", map[string]any{"name": "box", "egress": "allowlist"}, nil); err != nil {
				t.Fatal(err)
			}
			text, err := p.Text(sample[p.Name])
			if err != nil || strings.Contains(text, "<no value>") || strings.Contains(text, "{{") {
				t.Fatalf("it is not filled in: %s, %v", text, err)
			}
			calls, err := prompts.Calls(text)
			if err != nil || len(calls) < 3 {
				t.Fatalf("%v, %v", calls, err)
			}
			ids := map[string][]string{}
			for _, call := range calls {
				play(ctx, t, c, call, ids)
			}
		})
	}
}

// play makes a call of a prompt. ids are what calls before it were answered, by the word that stands for them in the text.
func play(ctx context.Context, t *testing.T, c *server.Client, call prompts.Call, ids map[string][]string) {
	t.Helper()
	text := string(call.Arguments)
	for word, answered := range ids {
		for _, id := range answered {
			text = strings.Replace(text, word, id, 1)
		}
	}
	if strings.Contains(text, "OPERATION") || strings.Contains(text, "REQUEST") {
		t.Errorf("%s waits for what no call before it answers: %s", call.Tool, text)
	}
	var arguments map[string]any
	if err := json.Unmarshal([]byte(text), &arguments); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Ignored   []string
		Operation string
		ExitCode  *int `json:"exit_code"`
		Stderr    string
		Clones    []struct {
			Exec struct {
				ExitCode *int `json:"exit_code"`
			}
		}
		Requests   []any
		Operations []struct {
			State string
			Exec  struct {
				ExitCode *int `json:"exit_code"`
			}
		}
	}
	if err := c.Call(ctx, call.Tool, arguments, &answer); err != nil || len(answer.Ignored) > 0 {
		t.Fatalf("%s %s: %+v, %v", call.Tool, text, answer, err)
	}
	codes := []*int{answer.ExitCode}
	for _, clone := range answer.Clones {
		codes = append(codes, clone.Exec.ExitCode)
	}
	for _, o := range answer.Operations {
		codes = append(codes, o.Exec.ExitCode)
	}
	for _, code := range codes {
		if code != nil && *code != 0 {
			t.Errorf("%s %s: exit code %d, %s", call.Tool, text, *code, answer.Stderr)
		}
	}
	if answer.Operation != "" {
		ids["OPERATION"] = append(ids["OPERATION"], answer.Operation)
	}
	for _, r := range answer.Requests {
		if request, ok := r.(map[string]any); ok {
			ids["REQUEST"] = append(ids["REQUEST"], fmt.Sprint(request["id"]))
		}
	}
}
