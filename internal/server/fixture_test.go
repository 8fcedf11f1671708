package server

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// What the official conformance suite wants of a server to be tested, beside what Pixels offers: tools, resources and prompts with known
// answers, by the same adapter. The suite says of each what it is to answer.

// A picture of one pixel, and a sound of nothing.
const (
	aPixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
	silent = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
)

// draft202012 is the schema whose keywords must all arrive.
const draft202012 = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","$defs":{"address":{"$anchor":"addressDef","type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},
"properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"},"contactMethod":{"type":"string","enum":["phone","email"]},"phone":{"type":"string"},"email":{"type":"string"}},
"allOf":[{"anyOf":[{"required":["phone"]},{"required":["email"]}]}],"if":{"properties":{"contactMethod":{"const":"phone"}},"required":["contactMethod"]},"then":{"required":["phone"]},"else":{"required":["email"]},"additionalProperties":false}`

func textOf(uri, kind, text string) mcp.TextResourceContents {
	return mcp.TextResourceContents{URI: uri, MIMEType: kind, Text: text}
}

func replies(content ...mcp.Content) mcpserver.ToolHandlerFunc {
	return func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return &mcp.CallToolResult{Content: content}, nil
	}
}

// fixtures adds what the suite wants.
func fixtures(s *Server) {
	sdk := s.mcp
	tool := func(name string, handle mcpserver.ToolHandlerFunc, options ...mcp.ToolOption) {
		sdk.AddTool(mcp.NewTool(name, append(options, mcp.WithDescription("for the conformance suite"))...), handle)
	}
	image, sound := mcp.NewImageContent(aPixel, "image/png"), mcp.NewAudioContent(silent, "audio/wav")
	tool("test_simple_text", replies(mcp.NewTextContent("This is a simple text response for testing.")))
	tool("test_image_content", replies(image))
	tool("test_audio_content", replies(sound))
	tool("test_embedded_resource", replies(mcp.NewEmbeddedResource(textOf("test://embedded-resource", "text/plain", "This is an embedded resource content."))))
	tool("test_multiple_content_types", replies(mcp.NewTextContent("Multiple content types test:"), image,
		mcp.NewEmbeddedResource(textOf("test://mixed-content-resource", "application/json", `{"test":"data","value":123}`))))
	tool("test_error_handling", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return mcp.NewToolResultError("This tool intentionally returns an error for testing"), nil
	})
	tool("test_tool_with_logging", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		for _, text := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
			if err := sdk.SendLogMessageToClient(ctx, mcp.NewLoggingMessageNotification(mcp.LoggingLevelInfo, "test", text)); err != nil {
				return nil, err
			}
			time.Sleep(50 * time.Millisecond)
		}
		return mcp.NewToolResultText("done"), nil
	})
	tool("test_tool_with_progress", func(ctx context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		tell := progress(ctx, request)
		for _, done := range []int{0, 50, 100} {
			if tell != nil {
				tell("on the way", done, 100)
			}
			time.Sleep(50 * time.Millisecond)
		}
		return mcp.NewToolResultText("done"), nil
	})
	tool("test_logging_tool", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		_ = sdk.SendLogMessageToClient(ctx, mcp.NewLoggingMessageNotification(mcp.LoggingLevelInfo, "test", "nobody asked")) // and nobody hears
		return mcp.NewToolResultText("done"), nil
	})
	tool("test_missing_capability", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if mcpserver.RequestProtocolInfoFromContext(ctx).ClientCapabilities.Sampling == nil {
			return nil, mcp.MissingRequiredClientCapabilityError{Capability: "sampling"}
		}
		return mcp.NewToolResultText("done"), nil
	})
	tool("test_trigger_tool_change", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		tool("test_added", replies(mcp.NewTextContent("added")))
		return mcp.NewToolResultText("changed"), nil
	})
	tool("test_reconnection", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		time.Sleep(200 * time.Millisecond)
		return mcp.NewToolResultText("reconnected"), nil
	})
	tool("test_x_mcp_header", replies(mcp.NewTextContent("seen")), mcp.WithString("region", mcp.Required(), func(schema map[string]any) { schema["x-mcp-header"] = "Region" }))
	sdk.AddTool(mcp.Tool{Name: "json_schema_2020_12_tool", Description: "for the conformance suite", RawInputSchema: json.RawMessage(draft202012)}, replies(mcp.NewTextContent("seen")))
	fixtureQuestions(s, tool)
	fixtureTasks(s)

	resource := func(uri, name, kind string, content mcp.ResourceContents) {
		sdk.AddResource(mcp.NewResource(uri, name, mcp.WithMIMEType(kind), mcp.WithResourceDescription("for the conformance suite")), func(context.Context, mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return []mcp.ResourceContents{content}, nil
		})
	}
	resource("test://static-text", "text", "text/plain", textOf("test://static-text", "text/plain", "This is the content of the static text resource."))
	resource("test://static-binary", "binary", "image/png", mcp.BlobResourceContents{URI: "test://static-binary", MIMEType: "image/png", Blob: aPixel})
	resource("test://watched-resource", "watched", "text/plain", textOf("test://watched-resource", "text/plain", "watched"))
	sdk.AddResourceTemplate(mcp.NewResourceTemplate("test://template/{id}/data", "template", mcp.WithTemplateMIMEType("application/json"), mcp.WithTemplateDescription("for the conformance suite")),
		func(_ context.Context, request mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			var id string
			if _, err := fmt.Sscanf(request.Params.URI, "test://template/%3s/data", &id); err != nil {
				return nil, err
			}
			return []mcp.ResourceContents{textOf(request.Params.URI, "application/json", fmt.Sprintf(`{"id":%q,"templateTest":true,"data":"Data for ID: %s"}`, id, id))}, nil
		})

	described := mcp.WithPromptDescription("for the conformance suite")
	prompt := func(p mcp.Prompt, messages func(arguments map[string]string) []mcp.PromptMessage) {
		sdk.AddPrompt(p, func(_ context.Context, request mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			return &mcp.GetPromptResult{Messages: messages(request.Params.Arguments)}, nil
		})
	}
	user := func(content ...mcp.Content) (out []mcp.PromptMessage) {
		for _, c := range content {
			out = append(out, mcp.NewPromptMessage(mcp.RoleUser, c))
		}
		return out
	}
	prompt(mcp.NewPrompt("test_simple_prompt", described), func(map[string]string) []mcp.PromptMessage {
		return user(mcp.NewTextContent("This is a simple prompt for testing."))
	})
	prompt(mcp.NewPrompt("test_prompt_with_arguments", described, mcp.WithArgument("arg1", mcp.RequiredArgument()), mcp.WithArgument("arg2", mcp.RequiredArgument())), func(a map[string]string) []mcp.PromptMessage {
		return user(mcp.NewTextContent(fmt.Sprintf("Prompt with arguments: arg1='%s', arg2='%s'", a["arg1"], a["arg2"])))
	})
	prompt(mcp.NewPrompt("test_prompt_with_embedded_resource", described, mcp.WithArgument("resourceUri", mcp.RequiredArgument())), func(a map[string]string) []mcp.PromptMessage {
		return user(mcp.NewEmbeddedResource(textOf(a["resourceUri"], "text/plain", "Embedded resource content for testing.")), mcp.NewTextContent("Please process the embedded resource above."))
	})
	prompt(mcp.NewPrompt("test_prompt_with_image", described), func(map[string]string) []mcp.PromptMessage {
		return user(image, mcp.NewTextContent("Please analyze the image above."))
	})
	sdk.AddPrompt(mcp.NewPrompt("test_input_required_result_prompt", described), func(_ context.Context, request mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		answer := mcpserver.ElicitationResponse(request.Params.InputResponses, "user_context")
		if answer == nil {
			return mcpserver.NewInputRequestBuilder("").Elicit("user_context", asks("What context should the prompt use?", "context")).PromptResult(), nil
		}
		return &mcp.GetPromptResult{Messages: user(mcp.NewTextContent(fmt.Sprint("Context: ", answer.Content)))}, nil
	})
}
