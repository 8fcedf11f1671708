package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"pixels/sandbox/manager"
	"pixels/tools"
)

// form is that of a question: one choice, which has no default, so that neither a client that fills in defaults decides, nor
// a key pressed twice.
func form(choices []manager.Choice) map[string]any {
	return map[string]any{
		"type": "object", "required": []string{"choice"},
		"properties": map[string]any{"choice": map[string]any{"type": "string", "title": "Your answer", "enum": choices}},
	}
}

// questions are those of one call to the human at its client. From protocol version 2026-07-28 on they are what a call
// answers first: the client calls again with the human's answers. Before, the server asks while the call is under way.
type questions struct {
	dialogs *dialogs
	modern  bool
	server  *mcpserver.MCPServer
	session mcpserver.ClientSession
	answers mcp.InputResponses // of the call before this one
	ask     *mcpserver.InputRequestBuilder
	asked   bool
	ids     []string // of what is asked
	owner   string
	tool    string
	seal    seal
	remote  bool // who answers may be anybody who has the token: no human
}

var (
	// errLater ends a question that is put to the human after the call.
	errLater = errors.New("the answer comes with another call")
	// errNoAnswer ends one that was closed.
	errNoAnswer = errors.New("there was no answer")
)

func newQuestions(ctx context.Context, d *dialogs, seal seal, request mcp.CallToolRequest, owner string) *questions {
	return &questions{
		dialogs: d, modern: mcp.IsModernProtocol(mcpserver.RequestProtocolVersion(ctx)), server: mcpserver.ServerFromContext(ctx), session: mcpserver.ClientSessionFromContext(ctx),
		answers: among(request.Params.InputResponses, seal.open(request.Params.RequestState, owner, request.Params.Name)), ask: mcpserver.NewInputRequestBuilder(""), owner: owner, tool: request.Params.Name, seal: seal, remote: identityOf(ctx).over != nil,
	}
}

// human is who may sit at the client, as far as that declared that it can ask them: the SDK doesn't look.
func (q *questions) human() (h tools.Human) {
	known, ok := q.session.(mcpserver.SessionWithClientInfo)
	if q.server == nil || !ok {
		return h
	}
	h.Again = len(q.answers) > 0
	can := known.GetClientCapabilities().Elicitation
	if can == nil {
		return h
	}
	if !q.remote && (can.Form != nil || can.URL == nil) { // one that names neither has forms, as the first version of this had
		h.Choose = func(ctx context.Context, question manager.Question) (manager.Choice, error) {
			r, err := q.put(ctx, question.ID, mcp.ElicitationParams{Message: question.Text, RequestedSchema: form(question.Choices)})
			if err != nil {
				return "", err
			}
			content, _ := r.Content.(map[string]any)
			choice, _ := content["choice"].(string)
			if r.Action != mcp.ElicitationResponseActionAccept || !slices.Contains(question.Choices, manager.Choice(choice)) {
				q.dialogs.unanswered(q.client(), question.ID, true)
				return "", errNoAnswer
			}
			q.dialogs.answered(q.client())
			return manager.Choice(choice), nil
		}
	}
	if can.URL != nil {
		h.Open = func(ctx context.Context, id, address, why string) error {
			r, err := q.put(ctx, id, mcp.ElicitationParams{Mode: mcp.ElicitationModeURL, Message: why, ElicitationID: id, URL: address})
			if err != nil {
				return err
			}
			if r.Action != mcp.ElicitationResponseActionAccept {
				q.dialogs.unanswered(q.client(), id, true)
				return errNoAnswer
			}
			q.dialogs.opened(q.client(), id) // once is enough
			return nil
		}
	}
	return h
}

// result asks the client, and has it hand back what it was asked.
func (q *questions) result() *mcp.CallToolResult {
	return q.ask.RequestState(q.seal.close(put{q.owner, q.tool, q.ids, time.Now().Add(sealedFor)})).ToolResult()
}

// client names the client whose dialogs are counted together: without sessions that is all that an owner has.
func (q *questions) client() string { return q.owner + " " + q.session.SessionID() }

// put puts one question, unless that dialog was closed in the client of late.
func (q *questions) put(ctx context.Context, id string, p mcp.ElicitationParams) (*mcp.ElicitationResult, error) {
	if q.modern {
		if r := mcpserver.ElicitationResponse(q.answers, id); r != nil {
			return r, nil
		}
	}
	switch {
	case q.dialogs.closed(q.client(), id):
		return nil, errNoAnswer
	case !q.modern:
		r, err := q.server.RequestElicitation(ctx, mcp.ElicitationRequest{Params: p})
		if err != nil && !errors.Is(context.Cause(ctx), context.Canceled) { // else it was decided elsewhere
			q.dialogs.unanswered(q.client(), id, ctx.Err() == nil)
		}
		return r, err
	case len(q.answers) == 0: // who was asked once, and gave no answer, is not asked again
		q.ask.Elicit(id, p)
		q.asked, q.ids = true, append(q.ids, id)
	}
	return nil, errLater
}
