// Package streams carries what MCP can't: a command in a sandbox with its streams as they come, a console, and the output of what runs in
// the background. It is HTTP, with an upgrade to a websocket for a command; a Unix socket carries it beside MCP, and any other connection
// can.
//
// The first message of a client is an Order, in text. Then its binary messages are input, and its text messages are of the type said. Of a
// server's binary messages the first byte tells which output the rest is; its text messages are of the type told, the last of which says
// how the command ended. Both ends are this program, of one version: what they exchange has the form of its own types.
package streams

import (
	"time"

	"pixels/internal/fault"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// The paths of the interface. Those but of execPath answer with a document of JSON.
const (
	execPath     = "/v1/exec"
	runsPath     = "/v1/runs"
	outputPath   = "/v1/runs/output"
	sessionsPath = "/v1/sessions"
	glancePath   = "/v1/glance"
)

// order asks for a command or a console.
type order struct {
	Name     string            `json:"name"`
	Argv     []string          `json:"argv,omitempty"`
	Shell    string            `json:"shell,omitempty"`
	Cwd      string            `json:"cwd,omitempty"`
	Env      map[string]string `json:"env,omitempty"`
	Unkept   map[string]string `json:"unkept,omitempty"`
	User     string            `json:"user,omitempty"`
	Timeout  time.Duration     `json:"timeout,omitempty"` // in nanoseconds
	Input    bool              `json:"input,omitempty"`   // input follows
	Terminal *terminal         `json:"terminal,omitempty"`
	Console  *sandbox.Console  `json:"console,omitempty"`
}

// terminal is one that a command is to have.
type terminal struct {
	Type string               `json:"type"`
	Size sandbox.TerminalSize `json:"size"`
}

func (o order) request() manager.ExecRequest {
	return manager.ExecRequest{Name: o.Name, Argv: o.Argv, Shell: o.Shell, Cwd: o.Cwd, Env: o.Env, Unkept: o.Unkept, User: o.User, Timeout: o.Timeout}
}

func orderOf(r manager.ExecRequest) order {
	return order{Name: r.Name, Argv: r.Argv, Shell: r.Shell, Cwd: r.Cwd, Env: r.Env, Unkept: r.Unkept, User: r.User, Timeout: r.Timeout}
}

// said is what a client says beside its input.
type said struct {
	End    bool                  `json:"end,omitempty"`    // of the input
	Cancel bool                  `json:"cancel,omitempty"` // end the command
	Size   *sandbox.TerminalSize `json:"size,omitempty"`
}

// told is what a server tells beside the outputs.
type told struct {
	Taken  int                   `json:"taken,omitempty"` // bytes of input that the command took since it was told last
	Woken  string                `json:"woken,omitempty"` // a sandbox that was started for this
	Ended  *manager.StreamResult `json:"ended,omitempty"`
	Failed *failure              `json:"failed,omitempty"`
}

// failure is an error in words for people.
type failure struct {
	Kind      fault.Kind `json:"kind,omitempty"`
	Text      string     `json:"text"`
	Cancelled bool       `json:"cancelled,omitempty"`
}

// Bounds, in bytes.
const (
	window   = 1 << 20  // input that is under way, which the server keeps until the command takes it
	piece    = 32 << 10 // of a stream in one message
	maxOrder = 4 << 20  // Linux takes 2 MiB of arguments and environment
)

// The outputs, as the first byte of a message has them.
const (
	stdout byte = 1
	stderr byte = 2
)
