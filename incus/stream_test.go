package incus

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/lxc/incus/v6/shared/api"
)

// TestOutputIsReadAfterIncusEnded reads the output of a command only after Incus has ended it and closed its streams, as a
// busy machine does. Incus's own client finds nothing then, and no error either.
func TestOutputIsReadAfterIncusEnded(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "late")
	op, streams, err := command(t.Context(), b.server, made.ID, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", "cat; echo error >&2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer streams.close()
	for _, message := range []int{websocket.BinaryMessage, websocket.TextMessage} {
		if err := streams.stdin.WriteMessage(message, []byte("output\n")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := wait(ctx, b.server, op); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if err := streams.carry(nil, &stdout, &stderr); err != nil || stdout.String() != "output\n" || stderr.String() != "error\n" {
		t.Errorf("output %q and %q, %v", stdout.String(), stderr.String(), err)
	}
}

// TestABrokenOutputIsAnError cuts the stream of a command that has more to say.
func TestABrokenOutputIsAnError(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "cut")
	op, streams, err := command(t.Context(), b.server, made.ID, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", "echo some; sleep 60"}})
	if err != nil {
		t.Fatal(err)
	}
	defer streams.close()
	came := &firstWrite{then: func() { _ = streams.stdout.NetConn().Close() }}
	if err := streams.carry(nil, came, nil); err == nil || !strings.Contains(err.Error(), "broke off") || came.kept.String() != "some\n" {
		t.Errorf("after %q: %v", came.kept.String(), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := wait(ctx, b.server, op); ctx.Err() != nil {
		t.Errorf("the command outlived its streams: %v", err)
	}
}

// firstWrite keeps what is written and calls then after the first write.
type firstWrite struct {
	kept bytes.Buffer
	then func()
}

func (f *firstWrite) Write(p []byte) (int, error) {
	n, err := f.kept.Write(p)
	if f.then != nil {
		f.then()
		f.then = nil
	}
	return n, err
}
