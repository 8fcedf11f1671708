package streams

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"pixels/sandbox/manager"
)

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// An output that can't be written is not taken for a connection that broke off; and the command ends.
func TestAnOutputThatCantBeWritten(t *testing.T) {
	m, as := open(t)
	if _, err := m.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	_, err := as("me").Stream(t.Context(), manager.ExecRequest{Name: "box", Shell: "echo hi; sleep 100"}, manager.Streams{Out: full{}, Err: full{}})
	if err == nil || err.Error() != "its output can't be written: no space left" {
		t.Error(err)
	}
	if _, err := as("").Runs(t.Context(), "box"); err == nil {
		t.Error("nobody is answered")
	}
	if _, err := as("").Stream(t.Context(), manager.ExecRequest{Name: "box", Shell: "true"}, manager.Streams{}); err == nil {
		t.Error("nobody runs a command")
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// Over TCP, too, the end of a command that leaves its input comes to who still sends it, with all that it said.
func TestACommandThatLeavesItsInput(t *testing.T) {
	m, as := open(t)
	if _, err := m.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	c := as("me")
	for range 50 {
		var out bytes.Buffer
		got, err := c.Stream(t.Context(), manager.ExecRequest{Name: "box", Shell: "echo all of it; exit 3"}, manager.Streams{In: endless{}, Out: &out, Err: &out})
		if err != nil || got.ExitCode != 3 || out.String() != "all of it\n" {
			t.Fatalf("%+v, %q, %v", got, out.String(), err)
		}
	}
}

// A client that sends more than it may, or what can't be read, ends its own command and no more.
func TestAClientThatKeepsNoRules(t *testing.T) {
	m, as := open(t)
	if _, err := m.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	c := as("me")
	dial := func() *websocket.Conn {
		t.Helper()
		conn, _, err := c.dialer.DialContext(t.Context(), "ws://pixels"+execPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	last := func(name string, conn *websocket.Conn) (end told) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		for end.Failed == nil && end.Ended == nil {
			if err := conn.ReadJSON(&end); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		return end
	}
	for name, misbehave := range map[string]func(conn *websocket.Conn) error{
		"no order": func(conn *websocket.Conn) error { return conn.WriteMessage(websocket.TextMessage, []byte("{")) },
		"too much input": func(conn *websocket.Conn) error {
			err := conn.WriteJSON(order{Name: "box", Shell: "sleep 100", Input: true})
			for range 2 * window / piece {
				err = errors.Join(err, conn.WriteMessage(websocket.BinaryMessage, make([]byte, piece)))
			}
			return err
		},
		"input unasked": func(conn *websocket.Conn) error {
			return errors.Join(conn.WriteJSON(order{Name: "box", Shell: "sleep 100"}), conn.WriteMessage(websocket.BinaryMessage, []byte("x")))
		},
		"words unheard of": func(conn *websocket.Conn) error {
			return errors.Join(conn.WriteJSON(order{Name: "box", Shell: "sleep 100"}), conn.WriteMessage(websocket.TextMessage, []byte("[")))
		},
		"a console without a terminal": func(conn *websocket.Conn) error {
			return conn.WriteJSON(map[string]any{"name": "box", "console": map[string]any{"Session": "x"}})
		},
	} {
		conn := dial()
		if err := misbehave(conn); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if end := last(name, conn); end.Failed == nil {
			t.Errorf("%s: %+v", name, end.Ended)
		}
		_ = conn.Close()
	}
	var out strings.Builder
	if _, err := c.Stream(context.Background(), manager.ExecRequest{Name: "box", Shell: "echo on"}, manager.Streams{Out: &out, Err: &out}); err != nil || out.String() != "on\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
