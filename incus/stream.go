package incus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"
)

// Incus carries each stream of a command over a websocket of its own: binary messages, and an empty text message at the
// end. The client's ExecInstance takes a connection that broke for one that ended, and breaks it itself: it answers the
// ping that the server sends first with a pong, and when the server has ended the command and closed by then, the pong's
// failure drops all that the server had sent before. So the connections are read here.
const (
	stdinStream  = "0"
	stdoutStream = "1"
	stderrStream = "2"
)

// streams are the connections of a command under way.
type streams struct {
	control, stdin, stdout, stderr *websocket.Conn
}

// command starts a command in an instance. It begins to run once its streams are attached.
func command(ctx context.Context, server *daemon, id string, post api.InstanceExecPost) (client.Operation, *streams, error) {
	post.WaitForWS = true
	op, _, err := server.commit(ctx).RawOperation(http.MethodPost, "/instances/"+url.PathEscape(id)+"/exec", post, "")
	if err != nil {
		return nil, nil, err
	}
	secrets, _ := op.Get().Metadata["fds"].(map[string]any)
	s := &streams{}
	type stream struct {
		name string
		conn **websocket.Conn
	}
	// Control comes first: the others start the command, which can have ended before a fourth is there.
	all := []stream{{api.SecretNameControl, &s.control}, {stdinStream, &s.stdin}, {stdoutStream, &s.stdout}, {stderrStream, &s.stderr}}
	if post.Interactive {
		all = all[:2] // both ways of a terminal are one
	}
	for _, stream := range all {
		secret, _ := secrets[stream.name].(string)
		conn, err := server.websocket(ctx, op.Get().ID, secret)
		if err != nil {
			s.close()
			return nil, nil, fmt.Errorf("attach stream %s of the command: %w", stream.name, err)
		}
		conn.SetPingHandler(func(data string) error {
			// Its failure is no reason to read no further.
			_ = conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
			return nil
		})
		*stream.conn = conn
	}
	return op, s, nil
}

// close drops the connections. A command that still runs then is killed by Incus.
func (s *streams) close() {
	for _, conn := range []*websocket.Conn{s.control, s.stdin, s.stdout, s.stderr} {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// carry feeds the command and takes its output, and returns once all output has come. When an output breaks off it fails,
// and drops the command.
func (s *streams) carry(stdin io.Reader, stdout, stderr io.Writer) error {
	if s.stdout == nil {
		go drain(s.control)
		go func() {
			if stdin != nil {
				_, _ = io.Copy(messages{s.stdin}, stdin) // its end is none of a terminal
			}
		}()
		return receive(s.stdin, stdout)
	}
	// Nothing comes on these two but pings, which have to be read to be answered.
	go drain(s.control)
	go drain(s.stdin)
	go send(s.stdin, stdin)
	ended := make(chan error)
	go func() { ended <- receive(s.stdout, stdout) }()
	go func() { ended <- receive(s.stderr, stderr) }()
	var first error
	for range 2 {
		if err := <-ended; err != nil && first == nil {
			first = err
			s.close()
		}
	}
	return first
}

func drain(conn *websocket.Conn) {
	_, _, _ = conn.ReadMessage()
}

// send sends all of r (nil is empty) and its end. A command that ends without reading it is no failure.
func send(conn *websocket.Conn, r io.Reader) {
	if r != nil {
		_, _ = io.Copy(messages{conn}, r)
	}
	_ = conn.WriteMessage(websocket.TextMessage, nil)
}

// messages sends each write as a message.
type messages struct{ conn *websocket.Conn }

func (m messages) Write(p []byte) (int, error) {
	if err := m.conn.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// receive writes what comes to w (nil drops it) until the stream's end. A stream that stops without saying so is a failure.
func receive(conn *websocket.Conn, w io.Writer) error {
	// A command whose output nobody takes must notice.
	defer conn.Close()
	if w == nil {
		w = io.Discard
	}
	for {
		kind, message, err := conn.NextReader()
		if err != nil {
			return fmt.Errorf("its output broke off: %w", err)
		}
		if kind == websocket.TextMessage {
			return nil
		}
		if _, err := io.Copy(w, message); err != nil {
			return fmt.Errorf("its output broke off: %w", err)
		}
	}
}

// heard keeps what a program says, up to so many bytes, and then fails: inside a sandbox root can have a program say anything.
type heard struct {
	most int
	b    bytes.Buffer
}

// saidMost is how much of what programs of ours say is kept: an address, or an error.
const saidMost = 64 << 10

func (h *heard) Write(p []byte) (int, error) {
	if len(p) > h.most-h.b.Len() {
		return 0, fmt.Errorf("it says more than %d bytes", h.most)
	}
	return h.b.Write(p)
}

func (h *heard) String() string { return strings.TrimSpace(h.b.String()) }
