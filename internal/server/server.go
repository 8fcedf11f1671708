// Package server serves tools over MCP and calls them as a client. Nothing else knows the SDK.
package server

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
	"github.com/rs/zerolog"

	"pixels/internal/fault"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/tools"
)

// instructions are what models read first, and always: clients cut them at 2 kB.
//
//go:embed instructions.md
var instructions string

// Server is an MCP server with the project's tools.
type Server struct {
	mcp *mcpserver.MCPServer
	log zerolog.Logger

	base     tools.Session
	about    mcp.Implementation
	handlers map[string]mcpserver.ToolHandlerFunc // of the tools whose calls may go on as tasks

	manager *manager.Manager
	dialogs dialogs
	seal    seal
	turns   turns
	called  func(tool string, failed bool, took time.Duration) // hears of each call; may be nil
}

// New returns a server. base is what the sessions of all requests have in common; whose a request is, its context may say
// otherwise: see WithOwner. more is for the SDK.
func New(version string, base tools.Session, log zerolog.Logger, more ...mcpserver.ServerOption) *Server {
	hooks := &mcpserver.Hooks{}
	hooks.AddAfterListTools(func(ctx context.Context, _ any, _ *mcp.ListToolsRequest, result *mcp.ListToolsResult) {
		result.Tools = offered(base.Manager, Caller(ctx, base.Caller), result.Tools)
	})
	s := &Server{base: base, about: mcp.Implementation{Name: "pixels", Title: "Pixels", Version: version}, handlers: map[string]mcpserver.ToolHandlerFunc{}, log: log, manager: base.Manager, seal: newSeal(), mcp: mcpserver.NewMCPServer("pixels", version, append(more, mcpserver.WithHooks(hooks),
		mcpserver.WithToolCapabilities(true), mcpserver.WithRecovery(), mcpserver.WithInstructions(instructions),
		mcpserver.WithTitle("Pixels"), mcpserver.WithExtensions(map[string]any{tasksExtension: struct{}{}}), mcpserver.WithPromptCapabilities(false), mcpserver.WithCompletions(), mcpserver.WithPromptCompletionProvider(completions{base}),
	)...)}
	for _, t := range tools.All() {
		handle := s.handler(t, base)
		if s.mcp.AddTool(describe(t), handle); t.Tasks {
			s.handlers[t.Name] = handle
		}
	}
	s.addPrompts()
	return s
}

// offered are the tools that a caller may call, in the order in which they are used, where the SDK's is that of the alphabet.
func offered(m *manager.Manager, c manager.Caller, all []mcp.Tool) []mcp.Tool {
	place := func(t mcp.Tool) int { return slices.Index(policy.Verbs, policy.Verb(t.Name)) }
	out := slices.DeleteFunc(slices.Clone(all), func(t mcp.Tool) bool { return !m.Offers(c, policy.Verb(t.Name)) })
	slices.SortFunc(out, func(a, b mcp.Tool) int { return place(a) - place(b) })
	return out
}

// toolsEvery is how often it is looked whether the policy offers other tools than before.
const toolsEvery = time.Second

// followTools tells clients when the policy has changed, so that they ask which tools there are, until ctx ends.
func (s *Server) followTools(ctx context.Context) {
	tick := time.NewTicker(toolsEvery)
	defer tick.Stop()
	for was := s.manager.Policy(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := s.manager.Policy(); now != was {
			was = now
			s.mcp.SendNotificationToAllClients("notifications/tools/list_changed", nil)
		}
	}
}

// describe puts a tool into the SDK's terms. Hints are all explicit: an unset one reads as destructive.
func describe(t tools.Tool) mcp.Tool {
	schemas := t.Schemas()
	return mcp.Tool{
		Name: t.Name, Title: t.Title, Description: t.Description, RawInputSchema: schemas.Input, RawOutputSchema: schemas.Output,
		Annotations: mcp.ToolAnnotation{
			ReadOnlyHint: &t.ReadOnly, DestructiveHint: &t.Destructive, IdempotentHint: &t.Idempotent,
			OpenWorldHint: new(bool),
		},
	}
}

// handler calls a tool and logs a line about it. What the caller can mend is in the result, never a protocol error.
func (s *Server) handler(t tools.Tool, base tools.Session) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, request mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		start := time.Now()
		arguments, err := json.Marshal(request.Params.Arguments)
		if err != nil {
			return nil, err
		}
		session := base
		ctx, done := whileItLasts(ctx)
		defer done()
		session.Caller = Caller(ctx, base.Caller)
		turn, err := s.turns.take(ctx, session.Caller.Owner)
		if err != nil {
			return mcp.NewToolResultError(err.Error()), nil
		}
		defer turn()
		questions := newQuestions(ctx, &s.dialogs, s.seal, request, session.Caller.Owner)
		var stop func()
		session.Progress, stop = lively(progress(ctx, request))
		defer stop()
		session.Human, session.Hold = questions.human(), identityOf(ctx).hold
		task := asTask(ctx)
		if task != nil {
			session.AsTask, session.Human = true, tools.Human{} // whom nobody could ask once the call is answered
		}
		if people(request) {
			session.Audience, session.Caller.Channel = view.Member, "cli"
		}
		r := t.Call(ctx, session, arguments)
		if task != nil {
			*task = r.Operation
		}
		if s.called != nil {
			s.called(t.Name, r.Failed, time.Since(start))
		}
		event := s.log.Info()
		if r.Failed {
			event = s.log.Warn()
		}
		if cause := r.Cause(); cause != nil {
			event = event.AnErr("cause", cause)
		}
		if r.Structured == nil {
			// Only what we say of a call: beside a structured result the text is a command's output, which may hold secrets.
			event = event.Str("error", r.Text)
		}
		event.Str("tool", t.Name).Str("call", session.Caller.Call).Str("owner", session.Caller.Owner).Dur("took", time.Since(start)).Msg("call")
		if questions.asked {
			return questions.result(), nil
		}
		result := toolResult(r)
		if kind := fault.Kind(""); people(request) && errors.As(r.Err(), &kind) {
			result.Meta = &mcp.Meta{AdditionalFields: map[string]any{kindField: string(kind)}}
		}
		return result, nil
	}
}

// toolResult is a result in the SDK's terms.
func toolResult(r tools.Result) *mcp.CallToolResult {
	content := []mcp.Content{mcp.NewTextContent(r.Text)}
	if r.Image != nil {
		content = append(content, mcp.NewImageContent(base64.StdEncoding.EncodeToString(r.Image.Data), r.Image.Type))
	}
	if size := sizeOf(r); size > maxAnswer {
		return mcp.NewToolResultError(fmt.Sprintf("the answer would be %s long, and clients take no more than %s: ask for less, by limit, offset or a narrower name", units.Size(int64(size)), units.Size(maxAnswer)))
	}
	return &mcp.CallToolResult{Content: content, StructuredContent: r.Structured, IsError: r.Failed}
}

// maxAnswer bounds an answer: some clients lose longer ones, with the connection.
const maxAnswer = 1 << 20

// sizeOf is how much a result takes on the wire, roughly.
func sizeOf(r tools.Result) int {
	size := len(r.Text)
	if r.Image != nil {
		size += base64.StdEncoding.EncodedLen(len(r.Image.Data))
	}
	if b, err := json.Marshal(r.Structured); err == nil { // else the SDK says so
		size += len(b)
	}
	return size
}

// Fields of a request's and of a result's _meta, by which the command line asks for errors in words for people, and is told of their
// kind. Whoever asks so is no human for that: they are who their connection says.
const (
	forPeople = "pixels/people"
	kindField = "pixels/kind"
)

func people(request mcp.CallToolRequest) bool {
	if request.Params.Meta == nil {
		return false
	}
	asked, _ := request.Params.Meta.AdditionalFields[forPeople].(bool)
	return asked
}

type callerKey struct{}

// WithOwner makes the requests of a context an owner's.
func WithOwner(ctx context.Context, owner string) context.Context {
	return context.WithValue(ctx, callerKey{}, manager.Caller{Owner: owner})
}

// Caller is who makes a request, with an ID for it: base, unless the context says whose it is, and by which token.
func Caller(ctx context.Context, base manager.Caller) manager.Caller {
	if who, ok := ctx.Value(callerKey{}).(manager.Caller); ok {
		base.Owner, base.Caps = who.Owner, who.Caps
	}
	base.Call = ledger.NewCall()
	return base
}

// whileItLasts is the context of a call, which ends with the token by which it came, and with its session.
func whileItLasts(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stops := []func(){cancel}
	session, _ := ctx.Value(lastsKey{}).(context.Context)
	for _, over := range []context.Context{identityOf(ctx).over, session} {
		if over != nil {
			stop := context.AfterFunc(over, cancel)
			stops = append(stops, func() { stop() })
		}
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// progress is how to tell the client how a call goes; nil when it did not ask.
func progress(ctx context.Context, request mcp.CallToolRequest) tools.Progress {
	server := mcpserver.ServerFromContext(ctx)
	if request.Params.Meta == nil || request.Params.Meta.ProgressToken == nil || server == nil {
		return nil
	}
	var mu sync.Mutex
	var at steps
	tell, ordered := ctx.Value(tellerKey{}).(teller)
	return func(message string, done, total int) {
		mu.Lock()
		defer mu.Unlock()
		said := map[string]any{"progressToken": request.Params.Meta.ProgressToken, "progress": at.next(done, total), "message": message}
		if total > 0 {
			said["total"] = total
		}
		// A client that doesn't take it loses a message and no more.
		if ordered {
			_ = tell(progressNotification(said))
		} else {
			_ = server.SendNotificationToClient(ctx, progressMethod, said)
		}
	}
}

// steps are what progress counts, which grows with each message, as the protocol wants it.
type steps struct {
	done  int     // parts
	since float64 // messages since the last
	parts bool    // are known
}

// next is the count for a message. Of a call that says at its beginning how many parts it has, it is how many are done, and something
// between two of them where a message tells of none.
func (s *steps) next(done, total int) float64 {
	s.parts = s.parts || total > 0
	if done > s.done {
		s.done, s.since = done, 0
		return float64(done)
	}
	s.since++
	if s.parts {
		return float64(s.done) + s.since/(s.since+1)
	}
	return s.since
}

const progressMethod = "notifications/progress"

func progressNotification(said map[string]any) mcp.JSONRPCNotification {
	n := mcp.JSONRPCNotification{JSONRPC: mcp.JSONRPC_VERSION}
	n.Method, n.Params.AdditionalFields = progressMethod, said
	return n
}

// Serve answers on a pair of streams until in ends or ctx does, and returns when every call has come to its end: a call
// under way is cancelled, and undoes what it began.
func (s *Server) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	err := s.serveLines(ctx, in, out)
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil // the client has gone, or we are to go: a normal end
	}
	return err
}
