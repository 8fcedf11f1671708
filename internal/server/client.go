package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"pixels/internal/fault"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
)

// closeTimeout bounds how long a server may take to undo what it had under way when its client closes.
const closeTimeout = time.Minute

// Client calls the tools of an MCP server.
type Client struct {
	mcp     *client.Client
	process *process // nil when the server is not ours to end
}

// process is a server that runs as a subprocess.
type process struct {
	cmd    *exec.Cmd
	stdout *os.File // our end of its answers
	ended  chan struct{}
	log    *tail
}

// CallError is what a tool answered when it failed.
type CallError struct{ Tool, Text string }

func (e *CallError) Error() string { return e.Tool + ": " + e.Text }

// Start runs a command that serves MCP on its stdio and opens a session with it. The end of what it logs is in the error
// when it does not answer. It is in a process group of its own: a Ctrl-C in the terminal must not end the server while its
// client still cleans up.
func Start(ctx context.Context, command string, args ...string) (*Client, error) {
	p := &process{cmd: exec.Command(command, args...), ended: make(chan struct{}), log: &tail{}}
	ownGroup(p.cmd)
	p.cmd.Stderr = p.log
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// A pipe of our own: Wait closes that of exec, and may do so before the last answer is read.
	stdout, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.stdout = write, stdout
	err = p.cmd.Start()
	_ = write.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", command, err), stdout.Close())
	}
	go func() {
		_ = p.cmd.Wait() // how it ended shows in p.cmd.ProcessState
		close(p.ended)
	}()
	c, err := Connect(ctx, stdout, stdin)
	if err != nil {
		_ = stdin.Close()
		p.end()
		return nil, fmt.Errorf("open an MCP session with %s: %w\n%s", command, err, p.log)
	}
	c.process = p
	return c, nil
}

// end waits for the process to end, which the end of its stdin asks it to, and kills it when it does not.
func (p *process) end() {
	select {
	case <-p.ended:
	case <-time.After(closeTimeout):
		_ = p.cmd.Process.Kill() // fails only when it has just ended
		<-p.ended
	}
	_ = p.stdout.Close()
}

// tail keeps the last few kilobytes of a log.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	t.buf = t.buf[max(0, len(t.buf)-4096):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// Connect opens a session over a pair of streams to a server that runs already.
func Connect(ctx context.Context, in io.Reader, out io.WriteCloser) (*Client, error) {
	c := client.NewClient(transport.NewIO(in, out, io.NopCloser(strings.NewReader(""))))
	// The session outlives the context that it was opened with, and ends with Close.
	if err := c.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	return open(ctx, c)
}

// open opens a session of a client that was started.
func open(ctx context.Context, c *client.Client) (*Client, error) {
	var hello mcp.InitializeRequest
	hello.Params.ProtocolVersion = mcp.LATEST_PROTOCOL_VERSION
	hello.Params.ClientInfo = mcp.Implementation{Name: "pixels", Version: "1"}
	if _, err := c.Initialize(ctx, hello); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &Client{mcp: c}, nil
}

// Close ends the session. When the server is a subprocess it waits until that has ended, up to a minute.
func (c *Client) Close() error {
	err := c.mcp.Close()
	if c.process == nil {
		return err
	}
	c.process.end()
	if state := c.process.cmd.ProcessState; !state.Success() {
		return fmt.Errorf("the server ended with %s\n%s", state, c.process.log)
	}
	return err
}

// Call calls a tool and reads its structured result into out, unless that is nil. A call that the tool answers as failed
// is a *CallError; its structured result, if any, is read all the same.
func (c *Client) Call(ctx context.Context, tool string, arguments map[string]any, out any) error {
	_, err := c.call(ctx, tool, arguments, nil, out)
	return err
}

// CallForPeople is Call for a human at a terminal: errors are in their words, and of their kind. It returns the text of the answer.
func (c *Client) CallForPeople(ctx context.Context, tool string, arguments map[string]any, out any) (string, error) {
	result, err := c.call(ctx, tool, arguments, &mcp.Meta{AdditionalFields: map[string]any{forPeople: true}}, out)
	var told *CallError
	switch {
	case err == nil:
		return text(result), nil
	case !errors.As(err, &told) || result.Meta == nil:
		return "", err
	}
	if kind, ok := result.Meta.AdditionalFields[kindField].(string); ok {
		return "", fault.Errorf(fault.Kind(kind), fault.Hint{}, "%s", told.Text)
	}
	return "", errors.New(told.Text)
}

func (c *Client) call(ctx context.Context, tool string, arguments map[string]any, meta *mcp.Meta, out any) (*mcp.CallToolResult, error) {
	var request mcp.CallToolRequest
	request.Params.Name, request.Params.Arguments, request.Params.Meta = tool, arguments, meta
	result, err := c.mcp.CallTool(ctx, request)
	var lost *url.Error
	switch {
	case errors.As(err, &lost) && ctx.Err() == nil:
		return nil, fmt.Errorf("the connection to the server broke off: %w", lost.Err)
	case err != nil:
		return nil, fmt.Errorf("call %s: %w", tool, err)
	}
	if out != nil && result.StructuredContent != nil {
		b, err := json.Marshal(result.StructuredContent)
		if err == nil {
			err = json.Unmarshal(b, out)
		}
		if err != nil {
			return nil, fmt.Errorf("read the result of %s: %w", tool, err)
		}
	}
	if result.IsError {
		return result, &CallError{tool, text(result)}
	}
	return result, nil
}

// text joins the text contents of a result.
func text(r *mcp.CallToolResult) (out string) {
	for _, c := range r.Content {
		if t, ok := c.(mcp.TextContent); ok {
			out += t.Text
		}
	}
	return out
}

// Tool is a tool as the server lists it.
type Tool struct {
	Name         string          `json:"name"`
	InputSchema  json.RawMessage `json:"inputSchema"`
	OutputSchema json.RawMessage `json:"outputSchema"`
}

// Tools lists the server's tools.
func (c *Client) Tools(ctx context.Context) ([]Tool, error) {
	list, err := c.mcp.ListTools(ctx, mcp.ListToolsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list tools: %w", err)
	}
	b, err := json.Marshal(list.Tools)
	if err != nil {
		return nil, err
	}
	var out []Tool
	return out, json.Unmarshal(b, &out)
}
