package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pixels/policy"
)

// talk is a client that speaks to a bridge line by line.
type talk struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

func (c *talk) say(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, text+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

// hear reads lines until one answers a request.
func (c *talk) hear(id int) (out struct {
	ID     int
	Result map[string]any
	Error  *struct{ Message string }
}, notified []string) {
	c.t.Helper()
	for {
		line, err := c.out.ReadString('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		var m struct {
			ID     *int
			Method string
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			c.t.Fatalf("%q: %v", line, err)
		}
		if m.Method != "" {
			notified = append(notified, m.Method)
			continue
		}
		if m.ID == nil || *m.ID != id {
			c.t.Fatalf("instead of the answer to %d: %s", id, line)
		}
		if err := json.Unmarshal([]byte(line), &out); err != nil {
			c.t.Fatal(err)
		}
		return out, notified
	}
}

func newBridge(t *testing.T, r Remote) (c *talk, ended chan error) {
	t.Helper()
	fromClient, in := io.Pipe()
	fromServer, out := io.Pipe()
	ended = make(chan error, 1)
	go func() {
		err := r.Bridge(context.Background(), fromClient, out)
		_ = out.Close()
		ended <- err
	}()
	t.Cleanup(func() { _ = in.Close() })
	return &talk{t, in, bufio.NewReader(fromServer)}, ended
}

// A client on stdin and stdout has what one by HTTP has, in both eras; and nothing is lost when it goes while it waits.
func TestTheBridge(t *testing.T) {
	s := serveHTTP(t)
	secret := s.token(t, "one", policy.Limits{})
	c, ended := newBridge(t, Remote{URL: s.url + "/", Secret: secret})
	c.say(hello)
	if got, _ := c.hear(1); got.Result["protocolVersion"] != "2025-11-25" {
		t.Fatalf("%+v", got)
	}
	c.say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	c.say(toolCall(2, "create_sandbox", `{"name":"box"}`, ""))
	if got, _ := c.hear(2); got.Result["isError"] == true {
		t.Fatalf("%+v", got)
	}
	c.say(toolCall(3, "exec", `{"name":"box","command":"echo begun; sleep 1; echo over"}`, `"progressToken":1`))
	if got, notified := c.hear(3); len(notified) == 0 || !strings.Contains(fmt.Sprint(got.Result), "begun\nover") {
		t.Errorf("%+v, %q", got, notified)
	}
	c.say(toolCall(4, "list_sandboxes", `{}`, `"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}`))
	if got, _ := c.hear(4); got.Error != nil || !strings.Contains(fmt.Sprint(got.Result), "box") {
		t.Errorf("stateless: %+v", got)
	}
	c.say(toolCall(5, "exec", `{"name":"box","command":"sleep 0.5; echo late"}`, ""))
	_ = c.in.Close()
	if got, _ := c.hear(5); !strings.Contains(fmt.Sprint(got.Result), "late") {
		t.Errorf("%+v", got)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	if n := s.sessions.count(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// When the server is started anew, the client's session goes on, as far as the client can tell; what is wrong is answered.
func TestTheBridgeOutlivesTheServer(t *testing.T) {
	var now atomic.Pointer[served]
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { now.Load().ServeHTTP(w, r) })}}
	front.Start()
	defer front.Close()
	defer front.CloseClientConnections()
	first := serveHTTP(t)
	secret := first.token(t, "one", policy.Limits{})
	now.Store(first)
	c, _ := newBridge(t, Remote{URL: front.URL, Secret: secret})
	defer c.in.Close()
	c.say(hello)
	c.hear(1)
	c.say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	second := NewHTTP(first.config)
	t.Cleanup(second.Close)
	now.Store(&served{HTTP: second})
	c.say(toolCall(2, "list_sandboxes", `{}`, ""))
	if got, _ := c.hear(2); got.Error != nil || got.Result["isError"] == true {
		t.Errorf("%+v", got)
	}
	if _, err := first.human.RevokeToken(t.Context(), "one", false); err != nil {
		t.Fatal(err)
	}
	c.say(toolCall(3, "list_sandboxes", `{}`, ""))
	if got, _ := c.hear(3); got.Error == nil || !strings.Contains(got.Error.Message, "refuses the token") {
		t.Errorf("%+v", got)
	}
	front.CloseClientConnections()
	_ = listener.Close()
	c.say(toolCall(4, "list_sandboxes", `{}`, ""))
	if got, _ := c.hear(4); got.Error == nil || !strings.Contains(got.Error.Message, "refused") {
		t.Errorf("%+v", got)
	}
}

// A token is sent in the open to nobody but this machine.
func TestATokenIsNotSentInTheOpen(t *testing.T) {
	for address, good := range map[string]bool{
		"http://127.0.0.1:1": true, "http://localhost:1": true, "http://[::1]:1": true, "https://host:1": true,
		"http://host:1": false, "http://192.0.2.1:1": false, "ftp://host": false, "https://": false, "https://me@host": false, "https://host/path": false, "host:1": false,
	} {
		if err := (Remote{URL: address, Secret: "x"}).Check(); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
	}
}
