package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
	"github.com/rs/zerolog"

	"pixels/egress"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
	"pixels/tools"
)

// answers is a client's human, or hook.
type answers func(ctx context.Context, p mcp.ElicitationParams) (*mcp.ElicitationResult, error)

func (a answers) Elicit(ctx context.Context, r mcp.ElicitationRequest) (*mcp.ElicitationResult, error) {
	return a(ctx, r.Params)
}

// elicited is a server over a backend in memory with a sandbox "box", and a client whose human answers.
type elicited struct {
	t       *testing.T
	c       *client.Client
	m       *manager.Manager
	door    manager.Door
	asked   atomic.Int32
	message string
	sent    *tap // what the client says
}

// tap remembers what passes through it.
type tap struct {
	io.WriteCloser
	mu    sync.Mutex
	text  strings.Builder
	wrote chan struct{}
}

func (w *tap) Write(b []byte) (int, error) {
	n, err := w.WriteCloser.Write(b)
	w.mu.Lock()
	w.text.Write(b[:n])
	w.mu.Unlock()
	select {
	case w.wrote <- struct{}{}:
	default:
	}
	return n, err
}

// await returns once words have passed.
func (w *tap) await(t *testing.T, words string) {
	t.Helper()
	for late := time.After(10 * time.Second); ; {
		w.mu.Lock()
		passed := strings.Contains(w.text.String(), words)
		w.mu.Unlock()
		if passed {
			return
		}
		select {
		case <-w.wrote:
		case <-late:
			t.Fatalf("%s is never said", words)
		}
	}
}

// newElicited declares what capability says, which may be nil.
func newElicited(t *testing.T, version, rules string, capability *mcp.ElicitationCapability, answer answers) *elicited {
	t.Helper()
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	m, door := manager.NewWithDoor(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Policy: sandboxtest.Policy(t, rules), Store: store})
	e := &elicited{t: t, m: m, door: door}
	if _, err := e.m.Create(t.Context(), manager.Agent("tester"), manager.CreateRequest{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	fromClient, write := io.Pipe()
	e.sent = &tap{WriteCloser: write, wrote: make(chan struct{}, 1)}
	fromServer, toClient := io.Pipe()
	served := make(chan error, 1)
	session := tools.Session{Manager: e.m, Operations: tools.NewOperations(t.Context()), Caller: manager.Agent("tester")}
	go func() {
		err := New("test", session, zerolog.Nop()).Serve(context.Background(), fromClient, toClient)
		_ = toClient.Close() // as the end of its process would
		served <- err
	}()
	e.c = client.NewClient(transport.NewIO(fromServer, e.sent, io.NopCloser(strings.NewReader(""))), client.WithElicitationHandler(answers(func(ctx context.Context, p mcp.ElicitationParams) (*mcp.ElicitationResult, error) {
		e.message = p.Message + " " + p.URL
		e.asked.Add(1)
		return answer(ctx, p)
	})))
	if err := e.c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	var hello mcp.InitializeRequest
	hello.Params.ProtocolVersion = version
	hello.Params.ClientInfo = mcp.Implementation{Name: "test", Version: "1"}
	hello.Params.Capabilities.Elicitation = capability
	if _, err := e.c.Initialize(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = e.c.Close()
		<-served
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// before is the last protocol version in which servers ask while a call is under way.
const before = "2025-11-25"

// allow asks for a domain, and returns what became of the request.
func (e *elicited) allow(ctx context.Context, domain string) (ledger.Request, error) {
	var request mcp.CallToolRequest
	request.Params.Name, request.Params.Arguments = "allow_domain", map[string]any{"name": "box", "domains": []string{domain}, "reason": "to try"}
	result, err := e.c.CallTool(ctx, request)
	if err != nil {
		return ledger.Request{}, err
	}
	if result.IsError {
		return ledger.Request{}, errors.New(text(result))
	}
	var out struct{ Requests []struct{ ID string } }
	b, err := json.Marshal(result.StructuredContent)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil || len(out.Requests) != 1 {
		e.t.Fatalf("%s, %v", b, err)
	}
	return e.m.Request(out.Requests[0].ID)
}

func says(action mcp.ElicitationResponseAction, content any) answers {
	return func(context.Context, mcp.ElicitationParams) (*mcp.ElicitationResult, error) {
		return &mcp.ElicitationResult{ElicitationResponse: mcp.ElicitationResponse{Action: action, Content: content}}, nil
	}
}

func TestOnlyAChoiceAtTheClientDecides(t *testing.T) {
	form := &mcp.ElicitationCapability{}
	choose := func(c any) answers {
		return says(mcp.ElicitationResponseActionAccept, map[string]any{"choice": c})
	}
	yes := choose("1 hour")
	for _, c := range []struct {
		name, rules, domain string
		can                 *mcp.ElicitationCapability
		answer              answers
		state               ledger.RequestState
		asked               int32
	}{
		{"yes", "", "example.com", form, yes, ledger.RequestGranted, 1},
		{"yes, on a port", "", "example.com:5432", form, yes, ledger.RequestGranted, 1},
		{"for this connection", "", "example.com", form, choose("this connection"), ledger.RequestGranted, 1},
		{"for a shift", "", "example.com", form, choose("8 hours"), ledger.RequestGranted, 1},
		{"for longer than may be", "[egress]\nmax_grant = \"2h\"\ngrant = \"1h\"", "example.com", form, choose("8 hours"), ledger.RequestOpen, 1},
		{"no", "", "example.com", form, choose("deny"), ledger.RequestDenied, 1},
		{"accepted without a word", "", "example.com", form, says(mcp.ElicitationResponseActionAccept, nil), ledger.RequestOpen, 1},
		{"accepted with nothing chosen", "", "example.com", form, says(mcp.ElicitationResponseActionAccept, map[string]any{}), ledger.RequestOpen, 1},
		{"accepted with another word", "", "example.com", form, choose("forever"), ledger.RequestOpen, 1},
		{"accepted with defaults for what there is", "", "example.com", form, choose(""), ledger.RequestOpen, 1},
		{"accepted with a truth", "", "example.com", form, choose(true), ledger.RequestOpen, 1},
		{"accepted as it was before", "", "example.com", form, says(mcp.ElicitationResponseActionAccept, map[string]any{"allow": true}), ledger.RequestOpen, 1},
		{"accepted as it was refused before", "", "example.com", form, says(mcp.ElicitationResponseActionAccept, map[string]any{"allow": false}), ledger.RequestOpen, 1},
		{"accepted with another form", "", "example.com", form, says(mcp.ElicitationResponseActionAccept, []any{"1 hour"}), ledger.RequestOpen, 1},
		{"declined", "", "example.com", form, says(mcp.ElicitationResponseActionDecline, map[string]any{"choice": "1 hour"}), ledger.RequestOpen, 1},
		{"cancelled", "", "example.com", form, says(mcp.ElicitationResponseActionCancel, map[string]any{"choice": "1 hour"}), ledger.RequestOpen, 1},
		{"an unknown action", "", "example.com", form, says("sure", map[string]any{"choice": "1 hour"}), ledger.RequestOpen, 1},
		{"an error", "", "example.com", form, func(context.Context, mcp.ElicitationParams) (*mcp.ElicitationResult, error) {
			return nil, errors.New("no window")
		}, ledger.RequestOpen, 1},
		{"a wildcard", "", "*.example.com", form, yes, ledger.RequestOpen, 0},
		{"switched off", "[egress]\nelicit = false", "example.com", form, yes, ledger.RequestOpen, 0},
		{"where more proof is wanted", "approval = \"passphrase\"", "example.com", form, yes, ledger.RequestOpen, 0},
		{"while others are never granted", "[egress]\nnever = [\"*.example.net\"]", "example.com", form, yes, ledger.RequestGranted, 1},
		{"a page alone", "", "example.com", &mcp.ElicitationCapability{URL: &struct{}{}}, yes, ledger.RequestOpen, 0},
		{"a page that is known", "page = \"http://127.0.0.1:7467\"", "*.example.com", &mcp.ElicitationCapability{URL: &struct{}{}}, yes, ledger.RequestOpen, 1},
	} {
		for _, version := range []string{before, mcp.LATEST_PROTOCOL_VERSION} {
			t.Run(c.name+" "+version, func(t *testing.T) {
				e := newElicited(t, version, c.rules, c.can, c.answer)
				r, err := e.allow(t.Context(), c.domain)
				if c.name == "an error" && err != nil { // of a client that gives the call up with it
					list, e := e.m.Requests("tester", 0)
					if e != nil || len(list) != 1 {
						t.Fatal(list, e)
					}
					r, err = list[0], nil
				}
				if err != nil || r.State != c.state || e.asked.Load() != c.asked {
					t.Fatalf("%+v, %v, asked %d times", r, err, e.asked.Load())
				}
				if r.Count != 1 {
					t.Errorf("it counts %d times", r.Count)
				}
				if c.state == ledger.RequestGranted && ((r.Scope == policy.Once) != (c.name == "for this connection") || r.Scope == policy.ThisLineage || r.Until.IsZero() || !strings.Contains(r.DecidedBy, "elicitation")) {
					t.Errorf("%+v", r)
				}
				if c.asked > 0 && !strings.Contains(e.message, `The agent says: "to try".`) {
					t.Errorf("the human reads %q", e.message)
				}
				if strings.Contains(c.rules, "page") && !strings.Contains(e.message, "http://127.0.0.1:7467/requests/"+r.ID) {
					t.Errorf("the human reads %q", e.message)
				}
			})
		}
	}
}

func TestAnAnswerElsewhereEndsTheQuestion(t *testing.T) {
	asked, decided := make(chan struct{}), make(chan struct{})
	e := newElicited(t, before, "", &mcp.ElicitationCapability{}, func(context.Context, mcp.ElicitationParams) (*mcp.ElicitationResult, error) {
		close(asked)
		<-decided // somebody who reads slowly, and then says yes
		return &mcp.ElicitationResult{ElicitationResponse: mcp.ElicitationResponse{Action: mcp.ElicitationResponseActionAccept, Content: map[string]any{"choice": "1 hour"}}}, nil
	})
	refused := make(chan error, 1)
	go func() {
		<-asked
		list, err := e.m.Requests("tester", 0, ledger.RequestOpen)
		if err == nil {
			_, err = e.door.Human("test").Refuse(t.Context(), manager.Approval{ID: list[0].ID, By: "test", Answer: "no"})
		}
		refused <- err
	}()
	r, err := e.allow(t.Context(), "example.com")
	if err != nil || <-refused != nil || r.State != ledger.RequestDenied {
		t.Errorf("%+v, %v", r, err)
	}
	close(decided)
	e.sent.await(t, `"choice":"1 hour"`)                                          // the late yes
	if _, err := e.c.ListTools(t.Context(), mcp.ListToolsRequest{}); err != nil { // which the server read before this
		t.Fatal(err)
	}
	if r, err := e.m.Request(r.ID); err != nil || r.State != ledger.RequestDenied {
		t.Errorf("a late yes made it %+v, %v", r, err)
	}
}

// Who closes a dialog is left alone with that question, and after three with all of them: 30 calls make no 30 dialogs.
func TestAClosedDialogStaysClosed(t *testing.T) {
	for _, version := range []string{before, mcp.LATEST_PROTOCOL_VERSION} {
		for name, answer := range map[string]answers{
			"declined": says(mcp.ElicitationResponseActionDecline, nil), "cancelled": says(mcp.ElicitationResponseActionCancel, nil),
			"nothing chosen": says(mcp.ElicitationResponseActionAccept, map[string]any{}),
		} {
			t.Run(name+" "+version, func(t *testing.T) {
				e := newElicited(t, version, "", &mcp.ElicitationCapability{}, answer)
				for range 10 {
					if r, err := e.allow(t.Context(), "example.com"); err != nil || r.State != ledger.RequestOpen {
						t.Fatalf("%+v, %v", r, err)
					}
				}
				if n := e.asked.Load(); n != 1 {
					t.Errorf("the same question was put %d times", n)
				}
				for i := range 10 {
					if _, err := e.allow(t.Context(), fmt.Sprintf("h%d.example.com", i)); err != nil {
						t.Fatal(err)
					}
				}
				if n := e.asked.Load(); n != mostInARow {
					t.Errorf("%d dialogs were made", n)
				}
				list, err := e.m.Requests("tester", 0, ledger.RequestOpen)
				if err != nil || len(list) != 11 {
					t.Errorf("%d are open, %v", len(list), err)
				}
			})
		}
	}
	// A page is opened once.
	page := newElicited(t, before, "page = \"http://127.0.0.1:7467\"", &mcp.ElicitationCapability{URL: &struct{}{}}, says(mcp.ElicitationResponseActionAccept, nil))
	for range 5 {
		if _, err := page.allow(t.Context(), "*.example.com"); err != nil {
			t.Fatal(err)
		}
	}
	if n := page.asked.Load(); n != 1 {
		t.Errorf("the page was opened %d times", n)
	}
	d := &dialogs{}
	d.unanswered("one", "req-a-digest", true)
	if !d.closed("one", "req-a-other") || d.closed("one", "req-b-x") || d.closed("two", "req-a-digest") {
		t.Error("not the dialog of that question in that client")
	}
}

// What a client was not asked, or was asked long ago, or as somebody else, it answers in vain: it is asked.
func TestOnlyWhatWasAskedIsAnswered(t *testing.T) {
	e := newElicited(t, mcp.LATEST_PROTOCOL_VERSION, "", &mcp.ElicitationCapability{}, says(mcp.ElicitationResponseActionAccept, map[string]any{"choice": "1 hour"}))
	r, err := e.allow(t.Context(), "first.example.com")
	if err != nil || r.State != ledger.RequestGranted || !strings.Contains(e.sent.text.String(), `"requestState":"`) {
		t.Fatalf("%+v, %v", r, err)
	}
	s := newSeal()
	now := put{"one", "allow_domain", []string{"req-a"}, time.Now().Add(time.Minute)}
	past, other := now, newSeal()
	past.Until = time.Now().Add(-time.Second)
	good := s.close(now)
	for what, c := range map[string]struct {
		state, owner, tool string
		want               int
	}{
		"it":               {good, "one", "allow_domain", 1},
		"another owner":    {good, "two", "allow_domain", 0},
		"another tool":     {good, "one", "create_sandbox", 0},
		"too late":         {s.close(past), "one", "allow_domain", 0},
		"another server's": {other.close(now), "one", "allow_domain", 0},
		"changed":          {good[:len(good)-4] + "AAAA", "one", "allow_domain", 0},
		"nothing":          {"", "one", "allow_domain", 0},
		"no seal at all":   {"e30", "one", "allow_domain", 0},
	} {
		if got := s.open(c.state, c.owner, c.tool); len(got) != c.want {
			t.Errorf("%s: %q", what, got)
		}
	}
	if got := among(map[string]int{"req-a": 1, "req-b": 2}, []string{"req-a"}); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// A wildcard, which no client is asked about, uses no dialog up.
func TestAWildcardUsesNoDialogUp(t *testing.T) {
	for _, version := range []string{before, mcp.LATEST_PROTOCOL_VERSION} {
		e := newElicited(t, version, "", &mcp.ElicitationCapability{}, says(mcp.ElicitationResponseActionAccept, map[string]any{"choice": "1 hour"}))
		var request mcp.CallToolRequest
		request.Params.Name = "allow_domain"
		request.Params.Arguments = map[string]any{"name": "box", "domains": []string{"*.a.example.com", "*.b.example.com", "*.c.example.com", "*.d.example.com", "plain.example.com"}, "reason": "to try"}
		if _, err := e.c.CallTool(t.Context(), request); err != nil || e.asked.Load() != 1 || !strings.Contains(e.message, "plain.example.com") {
			t.Errorf("asked %d times, %q, %v", e.asked.Load(), e.message, err)
		}
	}
}

func TestAClientThatGivesUpGrantsNothing(t *testing.T) {
	e := newElicited(t, before, "", &mcp.ElicitationCapability{}, func(ctx context.Context, _ mcp.ElicitationParams) (*mcp.ElicitationResult, error) {
		<-t.Context().Done() // the client's own never ends
		return nil, context.Cause(t.Context())
	})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := e.allow(ctx, "example.com"); err == nil {
		t.Error("it was answered")
	}
	list, err := e.m.Requests("tester", 0)
	if err != nil || len(list) != 1 || list[0].State != ledger.RequestOpen {
		t.Errorf("%+v, %v", list, err)
	}
}
