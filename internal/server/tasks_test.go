package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// modernCall is a request of the newest protocol; can are the client's capabilities.
func modernCall(id int, method, params, can string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":%q,"params":{%s"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":%s}}}`, id, method, params, can)
}

const knowsTasks = `{"extensions":{"io.modelcontextprotocol/tasks":{}}}`

// asker asks by HTTP without a session.
type asker struct {
	*served
	secret string
	n      int
}

// ask returns the result of a request, or its error, and the status.
func (a *asker) ask(t *testing.T, method, params, can string, headers ...string) (result, refused map[string]any, status int) {
	t.Helper()
	a.n++
	var named struct {
		Name, TaskID string
	}
	_ = json.Unmarshal([]byte("{"+strings.TrimSuffix(params, ",")+"}"), &named)
	answer := a.send(t, "POST", mcpPath, a.secret, modernCall(a.n, method, params, can), append([]string{"Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", method, "Mcp-Name", named.Name + named.TaskID}, headers...)...)
	var out struct{ Result, Error map[string]any }
	if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
		t.Fatalf("%s %s: %v", method, answer.Status, err)
	}
	return out.Result, out.Error, answer.StatusCode
}

func (a *asker) call(t *testing.T, tool, arguments string) map[string]any {
	t.Helper()
	got, refused, status := a.ask(t, "tools/call", fmt.Sprintf(`"name":%q,"arguments":%s,`, tool, arguments), knowsTasks)
	if refused != nil || status != 200 {
		t.Fatalf("%s: %d %v", tool, status, refused)
	}
	return got
}

func (a *asker) get(t *testing.T, id any) map[string]any {
	t.Helper()
	got, refused, status := a.ask(t, tasksGet, fmt.Sprintf(`"taskId":%q,`, id), knowsTasks)
	if refused != nil || status != 200 || got["taskId"] != id || got["resultType"] != "complete" {
		t.Fatalf("%v: %d %v %v", id, status, got, refused)
	}
	return got
}

// ended is a task once it works no more.
func (a *asker) ended(t *testing.T, id any) map[string]any {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if got := a.get(t, id); got["status"] != "working" {
			return got
		} else if time.Now().After(end) {
			t.Fatalf("it goes on: %v", got)
		}
	}
}

// A call that takes long is answered by a task, to who knows those, which has its result for an hour: a command, the making of a sandbox,
// the wait for a human.
func TestTasks(t *testing.T) {
	s := serveHTTP(t)
	a := &asker{served: s, secret: s.token(t, "modern", policy.Limits{})}
	if got, _, _ := a.ask(t, "server/discover", "", knowsTasks); got["capabilities"].(map[string]any)["extensions"].(map[string]any)[tasksExtension] == nil || got["capabilities"].(map[string]any)["tasks"] != nil {
		t.Errorf("%v", got)
	}
	if got := a.call(t, "create_sandbox", `{"name":"box","egress":"allowlist"}`); got["resultType"] != "complete" || got["isError"] == true || got["taskId"] != nil {
		t.Fatalf("what takes a moment is %v", got)
	}
	// A command.
	got := a.call(t, "exec", `{"name":"box","command":"echo begun; sleep 2; echo over; exit 3"}`)
	id := got["taskId"]
	if got["resultType"] != "task" || got["status"] != "working" || id == "" || got["content"] != nil || got["ttlMs"].(float64) < 3.6e6 || got["pollIntervalMs"] != 1000.0 {
		t.Fatalf("%v", got)
	}
	if got := a.get(t, id); got["status"] != "working" || got["result"] != nil {
		t.Errorf("%v", got)
	}
	done := a.ended(t, id)
	result, _ := done["result"].(map[string]any)
	if ran, _ := result["structuredContent"].(map[string]any); done["status"] != "completed" || ran["exit_code"] != 3.0 || ran["stdout"] != "begun\nover\n" || result["content"] == nil || done["createdAt"] != a.get(t, id)["createdAt"] {
		t.Errorf("%v", done)
	}
	if again := a.get(t, id); again["result"] == nil {
		t.Errorf("asked again it is %v", again)
	}
	// One that is cancelled.
	id = a.call(t, "exec", `{"name":"box","command":"sleep 600","timeout":900}`)["taskId"]
	for range 2 {
		if got, refused, _ := a.ask(t, tasksCancel, fmt.Sprintf(`"taskId":%q,`, id), knowsTasks); refused != nil || got["resultType"] != "complete" || got["status"] != nil {
			t.Errorf("%v %v", got, refused)
		}
	}
	if got := a.ended(t, id); got["status"] != "cancelled" || got["result"] != nil {
		t.Errorf("%v", got)
	}
	// An update is for no task of ours, and refused for none.
	if got, refused, _ := a.ask(t, tasksUpdate, fmt.Sprintf(`"taskId":%q,"inputResponses":{},`, id), knowsTasks); refused != nil || got["resultType"] != "complete" {
		t.Errorf("%v %v", got, refused)
	}
	// An answer of a human.
	asked := a.call(t, "allow_domain", `{"name":"box","domains":["example.com"],"reason":"to fetch"}`)
	request := asked["structuredContent"].(map[string]any)["requests"].([]any)[0].(map[string]any)["id"].(string)
	if got := a.call(t, "wait", fmt.Sprintf(`{"ids":[%q]}`, request)); got["taskId"] != request || got["status"] != "working" {
		t.Fatalf("%v", got)
	}
	r, err := s.human.Request(request)
	if err == nil {
		_, err = s.human.Approve(t.Context(), manager.Approval{ID: request, Seen: s.human.Digest(r), By: "test"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := a.ended(t, request); got["status"] != "completed" || !strings.Contains(fmt.Sprint(got["result"]), "granted") {
		t.Errorf("%v", got)
	}
	// A call that itself lasts, as one that makes sandboxes, and is lost with its server.
	if err := s.mcp.manager.BeginOperation(ledger.Operation{ID: "op-mine", Owner: "modern", Tool: "clone_sandbox", Started: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if got := a.get(t, "op-mine"); got["status"] != "working" {
		t.Errorf("%v", got)
	}
	if err := s.mcp.manager.EndOperation("op-mine", `{"made":2}`, "made 2"); err != nil {
		t.Fatal(err)
	}
	if got := a.get(t, "op-mine"); got["status"] != "completed" || fmt.Sprint(got["result"].(map[string]any)["structuredContent"]) != "map[made:2]" {
		t.Errorf("%v", got)
	}
}

// Tasks are their owner's, and for who knows them; what is asked of them wrongly is refused.
func TestTasksAreRefused(t *testing.T) {
	s := serveHTTP(t)
	a, other := &asker{served: s, secret: s.token(t, "one", policy.Limits{})}, &asker{served: s, secret: s.token(t, "other", policy.Limits{})}
	a.call(t, "create_sandbox", `{"name":"box"}`)
	id := fmt.Sprint(a.call(t, "exec", `{"name":"box","command":"sleep 30"}`)["taskId"])
	for _, method := range []string{tasksGet, tasksUpdate, tasksCancel} {
		for what, one := range map[string]struct {
			by      *asker
			id, can string
			headers []string
			code    float64
			status  int
		}{
			"no task":            {a, "op-none", knowsTasks, nil, -32602, 200},
			"no ID":              {a, "", knowsTasks, nil, -32602, 200},
			"another owner's":    {other, id, knowsTasks, nil, -32602, 200},
			"who knows no tasks": {a, id, `{}`, nil, -32021, 400},
			"another's name":     {a, id, knowsTasks, []string{"Mcp-Name", "op-other"}, -32020, 400},
			"another method":     {a, id, knowsTasks, []string{"Mcp-Method", "tools/call"}, -32020, 400},
		} {
			if _, refused, status := one.by.ask(t, method, fmt.Sprintf(`"taskId":%q,`, one.id), one.can, one.headers...); refused["code"] != one.code || status != one.status {
				t.Errorf("%s, %s: %d %v", method, what, status, refused)
			}
		}
	}
	for _, method := range []string{"tasks/result", "tasks/list"} {
		if _, refused, _ := a.ask(t, method, `"taskId":"x",`, knowsTasks); refused["code"] != -32601.0 {
			t.Errorf("%s: %v", method, refused)
		}
	}
	if _, refused, status := a.ask(t, "tools/call", `"name":"exec","arguments":{"name":"box","command":"true"},`, knowsTasks, "Mcp-Name", "read_file"); refused["code"] != -32020.0 || status != 400 {
		t.Errorf("a call by another name: %d %v", status, refused)
	}
	// Who knows no tasks gets the result itself, and waits for it.
	if got, refused, _ := a.ask(t, "tools/call", `"name":"exec","arguments":{"name":"box","command":"sleep 1.5; echo over"},`, `{}`); refused != nil || got["resultType"] != "complete" || !strings.Contains(fmt.Sprint(got), "over") {
		t.Errorf("%v %v", got, refused)
	}
	if got := a.get(t, id); got["status"] != "working" {
		t.Errorf("others ended it: %v", got)
	}
	a.ask(t, tasksCancel, fmt.Sprintf(`"taskId":%q,`, id), knowsTasks)
}

// Tasks are had on stdin and stdout, too.
func TestTasksInLines(t *testing.T) {
	s := serveHTTP(t)
	l := newLiner(t, s.mcp.manager, "alice", `{}`)
	l.say(t, modernCall(1, "tools/call", `"name":"create_sandbox","arguments":{"name":"box"},`, knowsTasks))
	l.await(t, `"id":1`)
	l.say(t, modernCall(2, "tools/call", `"name":"exec","arguments":{"name":"box","command":"sleep 1.5; echo over"},`, knowsTasks))
	var got struct {
		Result struct{ TaskID, ResultType string }
	}
	line, _ := l.await(t, `"id":2`)
	if err := json.Unmarshal([]byte(line), &got); err != nil || got.Result.ResultType != "task" {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := 3; ; i++ {
		l.say(t, modernCall(i, tasksGet, fmt.Sprintf(`"taskId":%q,`, got.Result.TaskID), knowsTasks))
		if answer, _ := l.await(t, fmt.Sprintf(`"id":%d,`, i)); strings.Contains(answer, `"status":"completed"`) {
			if !strings.Contains(answer, `over\n`) {
				t.Error(answer)
			}
			break
		} else if i > 200 {
			t.Fatal(answer)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
