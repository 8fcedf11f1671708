package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"testing"

	"pixels/incus/incustest"
)

// The way of a domain as agent and human go it: denied with a hint, allowed, used, denied again.
func TestADomainIsAllowedAndDenied(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	program, owner := self(t), fmt.Sprintf("network-%d", os.Getpid())
	c := start(t, program, owner)
	call := func(tool string, arguments map[string]any, out any) {
		t.Helper()
		if err := c.Call(t.Context(), tool, arguments, out); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		b, err := osexec.Command(program, append([]string{"--owner", owner, "network"}, args...)...).CombinedOutput()
		return string(b), err
	}
	call("create_sandbox", map[string]any{"name": "work", "egress": "allowlist"}, nil)
	type result struct{ Stdout, Denied string }
	exec := func(command string) (ran result) {
		t.Helper()
		call("exec", map[string]any{"name": "work", "command": command}, &ran)
		return ran
	}
	const reach = `exec 3<>/dev/tcp/unheard.example.com/80; printf 'GET / HTTP/1.1\r\nHost: unheard.example.com\r\nConnection: close\r\n\r\n' >&3; cat <&3`
	if ran := exec(reach); !strings.Contains(ran.Stdout, "403 Forbidden") || !strings.Contains(ran.Denied, "unheard.example.com") || !strings.Contains(ran.Denied, "allow_domain") {
		t.Errorf("denied: %+v", ran)
	}
	var behind struct{ Operation string }
	call("exec", map[string]any{"name": "work", "command": reach, "background": true}, &behind)
	var waited struct{ Operations []struct{ Exec result } }
	call("wait", map[string]any{"ids": []string{behind.Operation}}, &waited)
	if got := waited.Operations[0].Exec; !strings.Contains(got.Denied, "unheard.example.com") {
		t.Errorf("denied in the background: %+v", got)
	}
	if ran := exec("true"); ran.Denied != "" {
		t.Errorf("a command that reached for nothing: %+v", ran)
	}
	var asked struct {
		Granted  []string
		Requests []struct{ ID, Domain, State, Answer string }
	}
	ask := map[string]any{"name": "work", "domains": []string{"unheard.example.com"}, "reason": "a test"}
	call("allow_domain", ask, &asked)
	if len(asked.Requests) != 1 || asked.Requests[0].State != "open" || len(asked.Granted) != 0 {
		t.Fatalf("asked: %+v", asked)
	}
	id := asked.Requests[0].ID
	requests := func(args ...string) string {
		t.Helper()
		b, err := osexec.Command(program, append([]string{"--owner", owner, "requests"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("requests %v: %s %v", args, b, err)
		}
		return string(b)
	}
	if ran := exec(reach); ran.Denied == "" {
		t.Errorf("an open request lets it through: %+v", ran)
	}
	if out := requests("list"); !strings.Contains(out, id) || !strings.Contains(out, `the agent says: "a test"`) {
		t.Errorf("list: %s", out)
	}
	if out := requests("show", id); !strings.Contains(out, "unheard.example.com") || !strings.Contains(out, "work") {
		t.Errorf("show: %s", out)
	}
	var open struct{ Handle, For string }
	if err := json.Unmarshal([]byte(requests("show", id, "--json")), &open); err != nil || !strings.HasPrefix(open.Handle, id+"-") || open.For != "1h" {
		t.Errorf("as JSON: %+v, %v", open, err)
	}
	if out := requests("list"); !strings.Contains(out, open.Handle) || !strings.Contains(out, " 1h ") {
		t.Errorf("list: %s", out)
	}
	for wrong, says := range map[string]string{id: "as `pixels-mcp requests list` shows it", id + "-aaaaaaaaaaaa": "has changed since it was shown"} {
		b, err := osexec.Command(program, "--owner", owner, "requests", "approve", wrong).CombinedOutput()
		if err == nil || !strings.Contains(string(b), says) {
			t.Errorf("approve %s: %s, %v", wrong, b, err)
		}
	}
	if out, err := run("check", "work", "unheard.example.com"); err == nil || !strings.Contains(out, "no rule of the egress allowlist allows it") {
		t.Errorf("check: %s %v", out, err)
	}
	if out := requests("approve", open.Handle, "--for", "1h", "--answer", "go on"); !strings.Contains(out, "sandbox work") {
		t.Errorf("approve: %s", out)
	}
	if out, err := run("check", "work", "unheard.example.com:80"); err != nil || !strings.Contains(out, "may be reached until") || !strings.Contains(out, id) {
		t.Errorf("check: %s %v", out, err)
	}
	var answered struct {
		Operations []struct {
			Result struct{ State, Answer string }
		}
	}
	call("wait", map[string]any{"ids": []string{id}}, &answered)
	if r := answered.Operations[0].Result; r.State != "granted" || r.Answer != "go on" {
		t.Errorf("the agent hears %+v", answered)
	}
	if ran := exec(reach); strings.Contains(ran.Stdout, "403") || ran.Denied != "" { // there is no such name, which is another answer
		t.Errorf("allowed: %+v", ran)
	}
	if out, err := run("grants", "work"); err != nil || !strings.Contains(out, "unheard.example.com") || !strings.Contains(out, id) || !strings.Contains(out, owner+"/work") {
		t.Errorf("grants: %s %v", out, err)
	}
	shown, err := run("show", "work")
	if err != nil || !strings.Contains(shown, "work: egress allowlist, enforced") || !strings.Contains(shown, "unheard.example.com   (human, cli, by ") || !strings.Contains(shown, "denied lately") {
		t.Errorf("show: %s %v", shown, err)
	}
	if out, err := run("allow", "work", "10.1.2.0/24:5432", "--reason", "the database"); err != nil || !strings.Contains(out, "10.1.2.0/24:5432   (human, cli, by "+owner+": the database, until ") {
		t.Errorf("allow: %s %v", out, err)
	}
	// What strangers write commands no terminal.
	if out, err := run("allow", "work", "10.1.3.0/24:5432", "--reason", "a\x1b[2Jb\u202ec"); err != nil || strings.ContainsAny(out, "\x1b\u202e") || !strings.Contains(out, "a[2Jbc") {
		t.Errorf("allow: %q %v", out, err)
	}
	call("deny_domain", map[string]any{"name": "work", "domains": []string{"unheard.example.com"}}, nil)
	if ran := exec(reach); !strings.Contains(ran.Denied, "unheard.example.com") {
		t.Errorf("denied again: %+v", ran)
	}
	if out, err := run("set", "work", "agent"); err != nil || !strings.Contains(out, "egress agent, enforced") || !strings.Contains(out, "preset agent: ") {
		t.Errorf("set: %s %v", out, err)
	}
	if out, err := run("deny", "work", "api.openai.com"); err != nil || !strings.Contains(out, "api.openai.com:*   (denied by human, cli, by "+owner+")") {
		t.Errorf("deny: %s %v", out, err)
	}
	var denied *osexec.ExitError
	if out, err := run("check", "work", "api.openai.com:443"); !errors.As(err, &denied) || denied.ExitCode() != 4 || !strings.Contains(out, "denied, api.openai.com:* (human, cli") {
		t.Errorf("check: %s %v", out, err)
	}
	if out, err := run("set", "work", "unrestricted"); err == nil || !strings.Contains(out, "lifts what was denied: api.openai.com:*") || !strings.Contains(out, "--yes") {
		t.Errorf("set unrestricted: %s %v", out, err)
	}
	out, err := run("show", "work", "--json")
	var status struct {
		Mode     string
		Enforced bool
	}
	if err != nil || json.Unmarshal([]byte(out), &status) != nil || status.Mode != "agent" || !status.Enforced {
		t.Errorf("show as JSON: %s %v", out, err)
	}
	call("allow_domain", map[string]any{"name": "work", "domains": []string{"back.example.com"}, "reason": "a test"}, &asked)
	id = asked.Requests[0].ID
	if err := json.Unmarshal([]byte(requests("show", id, "--json")), &open); err != nil {
		t.Error(err)
	}
	requests("approve", open.Handle)
	if out := requests("revoke", id); !strings.Contains(out, "back.example.com is taken back from work") {
		t.Errorf("revoke: %s", out)
	}
	call("wait", map[string]any{"ids": []string{id}}, &answered)
	if r := answered.Operations[0].Result; r.State != "revoked" {
		t.Errorf("the agent hears %+v", answered)
	}
	call("allow_domain", map[string]any{"name": "work", "domains": []string{"other.example.com"}, "reason": "a test"}, &asked)
	requests("deny", asked.Requests[0].ID, "--answer", "not this")
	call("allow_domain", map[string]any{"name": "work", "domains": []string{"other.example.com"}, "reason": "again", "wait": 5}, &asked)
	if r := asked.Requests[0]; r.State != "denied" || r.Answer != "not this" {
		t.Errorf("after the denial: %+v", asked)
	}
	if out := requests("list"); strings.Contains(out, "other.example.com") {
		t.Errorf("list: %s", out)
	}
	for args, says := range map[string]string{"--verdict denyed": "did you mean", "--tool exce": "did you mean", "--sandbox nobody-here": "no record of a sandbox"} {
		b, err := osexec.Command(program, append([]string{"audit"}, strings.Fields(args)...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(b), says) {
			t.Errorf("audit %s: %s %v", args, b, err)
		}
	}
	if b, err := osexec.Command(program, "audit", "verify").CombinedOutput(); err != nil || !strings.Contains(string(b), "records are as they were written") {
		t.Errorf("audit verify: %s %v", b, err)
	}
	for _, wrong := range []struct{ args, says string }{
		{"allow work *.com", "anyone can have a name"}, {"allow work 10.0.0.1", "10.0.0.1/32"}, {"allow work a.example:99999", "65535"},
		{"set work open", "allowlist"}, {"show nobody", "there are: work"}, {"allow work", "one domain or more"},
	} {
		if out, err := run(strings.Fields(wrong.args)...); err == nil || !strings.Contains(out, wrong.says) {
			t.Errorf("network %s: %s %v", wrong.args, out, err)
		}
	}
}
