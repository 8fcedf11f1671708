package server

import (
	"context"
	"errors"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"pixels/tools"
)

// confirmation is the form of a question: a client may fill in what has a default, so that it has none but no.
var confirmation = map[string]any{
	"type": "object", "required": []string{"allow"},
	"properties": map[string]any{"allow": map[string]any{"type": "boolean", "title": "Allow it", "default": false}},
}

// questions are those of one call to the human at its client. From protocol version 2026-07-28 on they are what a call
// answers first: the client calls again with the human's answers. Before, the server asks while the call is under way.
type questions struct {
	modern  bool
	server  *mcpserver.MCPServer
	session mcpserver.ClientSession
	answers mcp.InputResponses // of the call before this one
	ask     *mcpserver.InputRequestBuilder
	asked   bool
}

// errLater ends a question that is put to the human after the call.
var errLater = errors.New("the answer comes with another call")

func newQuestions(ctx context.Context, request mcp.CallToolRequest) *questions {
	return &questions{
		modern: mcp.IsModernProtocol(mcpserver.RequestProtocolVersion(ctx)), server: mcpserver.ServerFromContext(ctx), session: mcpserver.ClientSessionFromContext(ctx),
		answers: request.Params.InputResponses, ask: mcpserver.NewInputRequestBuilder(""),
	}
}

// human is who may sit at the client, as far as that declared that it can ask them: the SDK doesn't look.
func (q *questions) human() (h tools.Human) {
	known, ok := q.session.(mcpserver.SessionWithClientInfo)
	if q.server == nil || !ok {
		return h
	}
	can := known.GetClientCapabilities().Elicitation
	if can == nil {
		return h
	}
	if can.Form != nil || can.URL == nil { // one that names neither has forms, as the first version of this had
		h.Confirm = func(ctx context.Context, id, question string) (bool, error) {
			r, err := q.put(ctx, id, mcp.ElicitationParams{Message: question, RequestedSchema: confirmation})
			if err != nil {
				return false, err
			}
			content, _ := r.Content.(map[string]any)
			allow, _ := content["allow"].(bool)
			return r.Action == mcp.ElicitationResponseActionAccept && allow, nil
		}
	}
	if can.URL != nil {
		h.Open = func(ctx context.Context, id, address, why string) error {
			r, err := q.put(ctx, id, mcp.ElicitationParams{Mode: mcp.ElicitationModeURL, Message: why, ElicitationID: id, URL: address})
			if err == nil && r.Action != mcp.ElicitationResponseActionAccept {
				err = errors.New("it was not opened")
			}
			return err
		}
	}
	return h
}

// put puts one question.
func (q *questions) put(ctx context.Context, id string, p mcp.ElicitationParams) (*mcp.ElicitationResult, error) {
	if !q.modern {
		return q.server.RequestElicitation(ctx, mcp.ElicitationRequest{Params: p})
	}
	if r := mcpserver.ElicitationResponse(q.answers, id); r != nil {
		return r, nil
	}
	if len(q.answers) == 0 { // who was asked once, and gave no answer, is not asked again
		q.ask.Elicit(id, p)
		q.asked = true
	}
	return nil, errLater
}
