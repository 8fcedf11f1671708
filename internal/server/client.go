package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
)

// Client calls the tools of an MCP server that it runs as a subprocess.
type Client struct {
	mcp *client.Client
}

// CallError is what a tool answered when it failed.
type CallError struct{ Tool, Text string }

func (e *CallError) Error() string { return e.Tool + ": " + e.Text }

// Start runs a command that serves MCP on its stdio and opens a session with it. The command's stderr goes to stderr. It
// is in a process group of its own: a Ctrl-C in the terminal must not end the server while its client still cleans up.
func Start(ctx context.Context, stderr io.Writer, command string, args ...string) (*Client, error) {
	spawn := func(_ context.Context, command string, env, args []string) (*exec.Cmd, error) {
		cmd := exec.Command(command, args...)
		cmd.Env = append(os.Environ(), env...)
		cmd.Stderr = stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd, nil
	}
	c, err := open(ctx, transport.NewStdioWithOptions(command, nil, args, transport.WithCommandFunc(spawn)))
	if err != nil {
		return nil, fmt.Errorf("open an MCP session with %s: %w", command, err)
	}
	return c, nil
}

// Connect opens a session over a pair of streams to a server that runs already.
func Connect(ctx context.Context, in io.Reader, out io.WriteCloser) (*Client, error) {
	return open(ctx, transport.NewIO(in, out, io.NopCloser(strings.NewReader(""))))
}

func open(ctx context.Context, t transport.Interface) (*Client, error) {
	c := client.NewClient(t)
	// The session outlives the context that it was opened with, and ends with Close.
	if err := c.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	var hello mcp.InitializeRequest
	hello.Params.ProtocolVersion = mcp.LATEST_PROTOCOL_VERSION
	hello.Params.ClientInfo = mcp.Implementation{Name: "pixels", Version: "1"}
	if _, err := c.Initialize(ctx, hello); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &Client{c}, nil
}

// Close ends the session and waits for the server to end.
func (c *Client) Close() error { return c.mcp.Close() }

// Call calls a tool and reads its structured result into out, unless that is nil. A call that the tool answers as failed
// is a *CallError; its structured result, if any, is read all the same.
func (c *Client) Call(ctx context.Context, tool string, arguments map[string]any, out any) error {
	var request mcp.CallToolRequest
	request.Params.Name, request.Params.Arguments = tool, arguments
	result, err := c.mcp.CallTool(ctx, request)
	if err != nil {
		return fmt.Errorf("call %s: %w", tool, err)
	}
	if out != nil && result.StructuredContent != nil {
		b, err := json.Marshal(result.StructuredContent)
		if err == nil {
			err = json.Unmarshal(b, out)
		}
		if err != nil {
			return fmt.Errorf("read the result of %s: %w", tool, err)
		}
	}
	if result.IsError {
		return &CallError{tool, text(result)}
	}
	return nil
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
