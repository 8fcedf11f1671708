package server

import (
	"context"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"pixels/policy"
	"pixels/prompts"
	"pixels/tools"
)

// addPrompts offers the prompts.
func (s *Server) addPrompts() {
	for _, p := range prompts.All() {
		offered := mcp.Prompt{Name: p.Name, Title: p.Title, Description: p.Description}
		for _, a := range p.Arguments {
			offered.Arguments = append(offered.Arguments, mcp.PromptArgument{Name: a.Name, Description: a.Description, Required: a.Required})
		}
		s.mcp.AddPrompt(offered, func(_ context.Context, request mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			text, err := p.Text(request.Params.Arguments)
			if err != nil {
				return nil, err
			}
			return mcp.NewGetPromptResult(p.Description, []mcp.PromptMessage{mcp.NewPromptMessage(mcp.RoleUser, mcp.NewTextContent(text))}), nil
		})
	}
}

// maxCompletions is how many values a completion may have, by the protocol.
const maxCompletions = 100

// completions offers what is there for the arguments of prompts.
type completions struct{ base tools.Session }

// CompletePromptArgument implements the SDK's PromptCompletionProvider.
func (c completions) CompletePromptArgument(ctx context.Context, _ string, argument mcp.CompleteArgument, _ mcp.CompleteContext) (*mcp.Completion, error) {
	caller := Caller(ctx, c.base.Caller)
	of := map[string]string{"source": "*"}[argument.Name]
	out := &mcp.Completion{Values: []string{}}
	if argument.Name != "sandbox" && of == "" || !c.base.Manager.Offers(caller, policy.VerbListSandboxes) {
		return out, nil
	}
	boxes, err := c.base.Manager.Glance(ctx, caller.Owner, of)
	if err != nil {
		return nil, err
	}
	for _, box := range boxes {
		values := []string{box.Name}
		if of != "" {
			values = nil
			for _, label := range box.Checkpoints {
				values = append(values, box.Name+":"+label)
			}
		}
		for _, value := range values {
			if strings.HasPrefix(value, argument.Value) {
				out.Values = append(out.Values, value)
			}
		}
	}
	out.Total = len(out.Values)
	if out.HasMore = out.Total > maxCompletions; out.HasMore {
		out.Values = out.Values[:maxCompletions]
	}
	return out, nil
}

var _ mcpserver.PromptCompletionProvider = completions{}
