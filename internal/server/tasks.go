package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"pixels/internal/view"
	"pixels/tools"
)

// The tasks extension of protocol version 2026-07-28 (SEP-2663): a call that takes long is answered by a task, which the client asks for
// until it is over. A task is what wait waits for, by the same ID: an operation, a command in the background, or a request. The SDK knows
// the tasks of an earlier version alone, so that what belongs to the extension is taken before it.
const tasksExtension = "io.modelcontextprotocol/tasks"

// The methods of the extension.
const (
	tasksGet    = "tasks/get"
	tasksUpdate = "tasks/update"
	tasksCancel = "tasks/cancel"
)

const (
	taskLife = time.Hour   // after its end, in which it can be asked for
	taskPoll = time.Second // between two questions
	beCalled = "tools/call"
)

// taskRequest is a request as far as it may be about tasks.
type taskRequest struct {
	ID     any    `json:"id"`
	Method string `json:"method"`
	Params struct {
		Name   string `json:"name"`
		TaskID string `json:"taskId"`
		Meta   struct {
			Version string `json:"io.modelcontextprotocol/protocolVersion"`
			Can     struct {
				Extensions map[string]json.RawMessage `json:"extensions"`
			} `json:"io.modelcontextprotocol/clientCapabilities"`
		} `json:"_meta"`
	} `json:"params"`
}

// taskKey is of a call that may go on as a task.
type taskKey struct{}

// asTask is how a call that may go on as a task tells by which ID it does.
func asTask(ctx context.Context) *string {
	id, _ := ctx.Value(taskKey{}).(*string)
	return id
}

// task answers a request that belongs to the extension. mine tells whether it does; the others are the SDK's. header is nil where the
// request did not come by HTTP.
func (s *Server) task(ctx context.Context, raw json.RawMessage, header http.Header) (answer any, mine bool) {
	var r taskRequest
	if json.Unmarshal(raw, &r) != nil || r.ID == nil || !mcp.IsModernProtocol(r.Params.Meta.Version) || !mcp.IsValidProtocolVersion(r.Params.Meta.Version) {
		return nil, false
	}
	_, declared := r.Params.Meta.Can.Extensions[tasksExtension]
	switch r.Method {
	case tasksGet, tasksUpdate, tasksCancel:
	case beCalled:
		if !declared || s.handlers[r.Params.Name] == nil {
			return nil, false
		}
	default:
		return nil, false
	}
	refuse := func(code int, why string, data any) (any, bool) {
		return mcp.NewJSONRPCError(mcp.NewRequestId(r.ID), code, why, data), true
	}
	if header != nil {
		if err := checkHeaders(header, r, raw); err != nil {
			return refuse(mcp.HEADER_MISMATCH, err.Error(), nil)
		}
	}
	if !declared {
		return refuse(mcp.MISSING_REQUIRED_CLIENT_CAPABILITY, "the client has not said that it knows "+tasksExtension,
			map[string]any{"requiredCapabilities": map[string]any{"extensions": map[string]any{tasksExtension: struct{}{}}}})
	}
	var result map[string]any
	var err error
	if r.Method == beCalled {
		result, err = s.callAsTask(ctx, raw)
	} else {
		result, err = s.aboutTask(ctx, r)
	}
	switch {
	case errors.Is(err, tools.ErrNoTask), errors.Is(err, errNotOffered):
		return refuse(mcp.INVALID_PARAMS, err.Error(), nil)
	case err != nil:
		return refuse(mcp.INTERNAL_ERROR, view.Error(err, view.Agent), nil)
	}
	return mcp.JSONRPCResponse{JSONRPC: mcp.JSONRPC_VERSION, ID: mcp.NewRequestId(r.ID), Result: result}, true
}

// checkHeaders checks that the headers say what the body does (SEP-2243, and for tasks SEP-2663).
func checkHeaders(header http.Header, r taskRequest, raw json.RawMessage) error {
	if r.Method == beCalled {
		var whole struct {
			Params json.RawMessage `json:"params"`
		}
		_ = json.Unmarshal(raw, &whole) // it was read before
		return mcp.ValidateStandardHeaders(header.Get, r.Params.Meta.Version, mcp.MCPMethod(r.Method), whole.Params)
	}
	if method := header.Get(mcp.HeaderMethod); method != r.Method {
		return mcp.HeaderMismatchError{Header: mcp.HeaderMethod, Reason: "it is " + method + ", and the request is " + r.Method}
	}
	if name, ok := mcp.DecodeHeaderValue(header.Get(mcp.HeaderName)); !ok || name != r.Params.TaskID {
		return mcp.HeaderMismatchError{Header: mcp.HeaderName, Reason: "it is not the request's taskId"}
	}
	return nil
}

var errNotOffered = errors.New("there is no such tool")

// callAsTask calls a tool, and answers its result, or the task as which it goes on.
func (s *Server) callAsTask(ctx context.Context, raw json.RawMessage) (out map[string]any, err error) {
	defer func() { // the panic of one call ends no other
		if p := recover(); p != nil {
			s.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("request")
			out, err = nil, errors.New("this failed by a fault of Pixels itself; the server's log has more")
		}
	}()
	var request mcp.CallToolRequest
	if err := json.Unmarshal(raw, &request); err != nil {
		return nil, err
	}
	var id string
	result, err := s.handlers[request.Params.Name](context.WithValue(ctx, taskKey{}, &id), request)
	if err != nil {
		return nil, err
	}
	if id == "" {
		return s.resultOf(result)
	}
	now := time.Now()
	return s.stamped(describeTask(tools.Task{ID: id, Status: tools.TaskWorking, Started: now}, "task")), nil
}

// aboutTask answers what a client asks about a task.
func (s *Server) aboutTask(ctx context.Context, r taskRequest) (map[string]any, error) {
	session := s.base
	session.Caller = Caller(ctx, session.Caller)
	turn, err := s.turns.take(ctx, session.Caller.Owner)
	if err != nil {
		return nil, err
	}
	defer turn()
	t, err := session.Task(ctx, r.Params.TaskID, r.Method == tasksCancel)
	if err != nil || r.Method != tasksGet {
		// No task of ours asks its client anything: what an update brings is for none.
		return s.stamped(map[string]any{"resultType": mcp.ResultTypeComplete}), err
	}
	out := describeTask(t, string(mcp.ResultTypeComplete))
	switch t.Status {
	case tools.TaskCompleted:
		if out["result"], err = s.resultOf(toolResult(t.Result)); err != nil {
			return nil, err
		}
	case tools.TaskFailed:
		out["error"] = map[string]any{"code": mcp.INTERNAL_ERROR, "message": t.Why}
	}
	return s.stamped(out), nil
}

// describeTask is a task as the protocol has it.
func describeTask(t tools.Task, resultType string) map[string]any {
	last := t.Ended
	if last.IsZero() {
		last = time.Now()
	}
	return map[string]any{
		"resultType": resultType, "taskId": t.ID, "status": t.Status, "createdAt": t.Started.UTC().Format(time.RFC3339Nano), "lastUpdatedAt": last.UTC().Format(time.RFC3339Nano),
		"ttlMs": taskLife.Milliseconds() + max(0, last.Sub(t.Started).Milliseconds()), "pollIntervalMs": taskPoll.Milliseconds(),
	}
}

// resultOf is a tool's result, as one of the newest protocol.
func (s *Server) resultOf(result *mcp.CallToolResult) (out map[string]any, err error) {
	b, err := json.Marshal(result)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return nil, err
	}
	if out["resultType"] == nil {
		out["resultType"] = mcp.ResultTypeComplete
	}
	return s.stamped(out), nil
}

// stamped adds who answers.
func (s *Server) stamped(out map[string]any) map[string]any {
	meta, _ := out["_meta"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
	}
	meta[mcp.MetaKeyServerInfo] = s.about
	out["_meta"] = meta
	return out
}
