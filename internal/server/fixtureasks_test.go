package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"pixels/tools"
)

// schemaOf is what a form asks for, as JSON.
func schemaOf(text string) (schema map[string]any) {
	if err := json.Unmarshal([]byte(text), &schema); err != nil {
		panic(err)
	}
	return schema
}

// asks is a question for one word.
func asks(message, field string) mcp.ElicitationParams {
	return mcp.ElicitationParams{Message: message, RequestedSchema: schemaOf(fmt.Sprintf(`{"type":"object","properties":{%q:{"type":"string"}},"required":[%q]}`, field, field))}
}

func samples(text string, most int) mcp.CreateMessageParams {
	return mcp.CreateMessageParams{Messages: []mcp.SamplingMessage{{Role: mcp.RoleUser, Content: mcp.NewTextContent(text)}}, MaxTokens: most}
}

type addTool func(name string, handle mcpserver.ToolHandlerFunc, options ...mcp.ToolOption)

// fixtureQuestions are tools that ask the client something before they answer.
func fixtureQuestions(s *Server, tool addTool) {
	builder := mcpserver.NewInputRequestBuilder
	done := func(format string, args ...any) (*mcp.CallToolResult, error) {
		return mcp.NewToolResultText(fmt.Sprintf(format, args...)), nil
	}
	// With sessions the client is asked while the call goes on; the SDK does so for the same handlers.
	form := func(name string, params func(mcp.CallToolRequest) mcp.ElicitationParams, say string, options ...mcp.ToolOption) {
		tool(name, func(_ context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			answer := mcpserver.ElicitationResponse(request.Params.InputResponses, "form")
			if answer == nil {
				return builder("").Elicit("form", params(request)).ToolResult(), nil
			}
			content, _ := json.Marshal(answer.Content)
			return done(say, answer.Action, content)
		}, options...)
	}
	form("test_elicitation", func(r mcp.CallToolRequest) mcp.ElicitationParams {
		return mcp.ElicitationParams{Message: r.GetString("message", ""), RequestedSchema: schemaOf(`{"type":"object","properties":{"username":{"type":"string","description":"User's response"},"email":{"type":"string","description":"User's email address"}},"required":["username","email"]}`)}
	}, "User response: action=%s, content=%s", mcp.WithString("message", mcp.Required()))
	form("test_elicitation_sep1034_defaults", func(mcp.CallToolRequest) mcp.ElicitationParams {
		return mcp.ElicitationParams{Message: "Defaults", RequestedSchema: schemaOf(`{"type":"object","properties":{"name":{"type":"string","default":"John Doe"},"age":{"type":"integer","default":30},"score":{"type":"number","default":95.5},
			"status":{"type":"string","enum":["active","inactive","pending"],"default":"active"},"verified":{"type":"boolean","default":true}}}`)}
	}, "Elicitation completed: action=%s, content=%s")
	form("test_elicitation_sep1330_enums", func(mcp.CallToolRequest) mcp.ElicitationParams {
		return mcp.ElicitationParams{Message: "Enums", RequestedSchema: schemaOf(`{"type":"object","properties":{
			"untitledSingle":{"type":"string","enum":["option1","option2","option3"]},
			"titledSingle":{"type":"string","oneOf":[{"const":"value1","title":"First Option"},{"const":"value2","title":"Second Option"},{"const":"value3","title":"Third Option"}]},
			"legacyEnum":{"type":"string","enum":["opt1","opt2","opt3"],"enumNames":["Option One","Option Two","Option Three"]},
			"untitledMulti":{"type":"array","items":{"type":"string","enum":["option1","option2","option3"]}},
			"titledMulti":{"type":"array","items":{"anyOf":[{"const":"value1","title":"First Choice"},{"const":"value2","title":"Second Choice"},{"const":"value3","title":"Third Choice"}]}}}}`)}
	}, "Elicitation completed: action=%s, content=%s")
	sampled := func(name, id string, ask func(mcp.CallToolRequest) mcp.CreateMessageParams, options ...mcp.ToolOption) {
		tool(name, func(_ context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			answer := mcpserver.SamplingResponse(request.Params.InputResponses, id)
			if answer == nil {
				return builder("").Sample(id, ask(request)).ToolResult(), nil
			}
			content, _ := json.Marshal(answer.Content)
			return done("LLM response: %s", content)
		}, options...)
	}
	sampled("test_sampling", "sample", func(r mcp.CallToolRequest) mcp.CreateMessageParams { return samples(r.GetString("prompt", ""), 100) }, mcp.WithString("prompt", mcp.Required()))
	sampled("test_input_required_result_sampling", "capital_question", func(mcp.CallToolRequest) mcp.CreateMessageParams {
		return samples("What is the capital of France?", 100)
	})
	form("test_streaming_elicitation", func(mcp.CallToolRequest) mcp.ElicitationParams { return asks("What is your name?", "name") }, "%s %s")
	tool("test_input_required_result_elicitation", func(_ context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		answer := mcpserver.ElicitationResponse(request.Params.InputResponses, "user_name")
		if answer == nil || answer.Content == nil {
			return builder("").Elicit("user_name", asks("What is your name?", "name")).ToolResult(), nil
		}
		return done("Hello, %v!", answer.Content.(map[string]any)["name"])
	})
	tool("test_input_required_result_list_roots", func(_ context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		roots := mcpserver.RootsResponse(request.Params.InputResponses, "client_roots")
		if roots == nil {
			return builder("").Roots("client_roots").ToolResult(), nil
		}
		return done("roots: %v", roots.Roots)
	})
	// State is sealed as that of our own questions is.
	state := func(tool, step string) string {
		return s.seal.close(put{"", tool, []string{step}, time.Now().Add(sealedFor)})
	}
	at := func(request mcp.CallToolRequest) string {
		return strings.Join(s.seal.open(request.Params.RequestState, "", request.Params.Name), "")
	}
	confirm := func(name string) {
		tool(name, func(_ context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if len(request.Params.InputResponses) == 0 && request.Params.RequestState == "" {
				return builder(state(name, "1")).Elicit("confirm", mcp.ElicitationParams{Message: "Please confirm", RequestedSchema: schemaOf(`{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]}`)}).ToolResult(), nil
			}
			if at(request) != "1" {
				return nil, fmt.Errorf("%w: the requestState is not what was sent", mcp.ErrInvalidParams)
			}
			return done("state-ok")
		})
	}
	confirm("test_input_required_result_request_state")
	confirm("test_input_required_result_tampered_state")
	tool("test_input_required_result_multiple_inputs", func(_ context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if len(request.Params.InputResponses) < 3 || at(request) != "1" {
			return builder(state(request.Params.Name, "1")).Elicit("user_name", asks("What is your name?", "name")).Sample("greeting", samples("Generate a greeting", 50)).Roots("client_roots").ToolResult(), nil
		}
		return done("all there")
	})
	tool("test_input_required_result_multi_round", func(_ context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		switch at(request) {
		case "2":
			return done("done")
		case "1":
			return builder(state(request.Params.Name, "2")).Elicit("step2", asks("Step 2: What is your favorite color?", "color")).ToolResult(), nil
		}
		return builder(state(request.Params.Name, "1")).Elicit("step1", asks("Step 1: What is your name?", "name")).ToolResult(), nil
	})
	tool("test_input_required_result_capabilities", func(ctx context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if len(request.Params.InputResponses) > 0 {
			return done("answered")
		}
		ask := builder("")
		can := mcpserver.RequestProtocolInfoFromContext(ctx).ClientCapabilities
		if can.Sampling != nil {
			ask = ask.Sample("sample", samples("Say something", 10))
		}
		if can.Elicitation != nil {
			ask = ask.Elicit("user_name", asks("What is your name?", "name"))
		}
		return ask.ToolResult(), nil
	})
}

// fixtureTasks are tools that go on as tasks.
func fixtureTasks(s *Server) {
	operations := s.base.Operations
	add := func(name string, work func(ctx context.Context, arguments map[string]any) tools.Result, options ...mcp.ToolOption) {
		t := tools.Tool{Name: name, Tasks: true, Call: func(ctx context.Context, session tools.Session, arguments json.RawMessage) tools.Result {
			var given map[string]any
			_ = json.Unmarshal(arguments, &given)
			return operations.Do(ctx, session, name, func(ctx context.Context) tools.Result { return work(ctx, given) })
		}}
		handle := s.handler(t, s.base)
		s.handlers[name] = handle
		s.mcp.AddTool(mcp.NewTool(name, append(options, mcp.WithDescription("for the conformance suite"))...), handle)
	}
	s.mcp.AddTool(mcp.NewTool("greet", mcp.WithDescription("for the conformance suite"), mcp.WithString("name")), func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return mcp.NewToolResultText("Hello, " + r.GetString("name", "") + "!"), nil
	})
	add("slow_compute", func(ctx context.Context, a map[string]any) tools.Result {
		seconds, _ := a["seconds"].(float64)
		select {
		case <-time.After(time.Duration(seconds * float64(time.Second))):
			return tools.Result{Text: "computed"}
		case <-ctx.Done():
			return tools.Result{Text: "cancelled", Failed: true}
		}
	}, mcp.WithNumber("seconds"), mcp.WithString("label"))
	add("failing_job", func(context.Context, map[string]any) tools.Result {
		time.Sleep(1100 * time.Millisecond)
		return tools.Result{Text: "it failed", Failed: true}
	})
	add("protocol_error_job", func(context.Context, map[string]any) tools.Result {
		time.Sleep(1100 * time.Millisecond)
		panic("as it is to")
	})
	// What is asked before the work begins.
	const asking = "test_tool_with_task"
	handle := func(ctx context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		answer := mcpserver.ElicitationResponse(request.Params.InputResponses, "user_name")
		if answer == nil {
			return mcpserver.NewInputRequestBuilder("").Elicit("user_name", asks("What is your name?", "name")).ToolResult(), nil
		}
		session := s.base
		session.Caller, session.AsTask = Caller(ctx, session.Caller), true
		r := operations.Do(ctx, session, asking, func(context.Context) tools.Result {
			time.Sleep(1500 * time.Millisecond)
			return tools.Result{Text: fmt.Sprint("Hello, ", answer.Content)}
		})
		*asTask(ctx) = r.Operation
		return toolResult(r), nil
	}
	s.handlers[asking] = handle
	s.mcp.AddTool(mcp.NewTool(asking, mcp.WithDescription("for the conformance suite")), handle)
}
