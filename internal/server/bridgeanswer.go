package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
)

// copy writes the messages of an answer.
func (b *bridge) copy(ctx context.Context, m message, answer *http.Response, hello bool) {
	kind, _, _ := strings.Cut(answer.Header.Get("Content-Type"), ";")
	switch {
	case kind == "text/event-stream":
		b.events(answer.Body, hello)
		return
	case kind == "application/json":
		body, err := io.ReadAll(io.LimitReader(answer.Body, maxMessage))
		if err != nil {
			b.failed(ctx, m, err)
			return
		}
		b.say(body, hello)
	case answer.StatusCode >= 300:
		b.failed(ctx, m, statusError(answer))
	}
}

func statusError(answer *http.Response) error {
	if err := Refused(answer.StatusCode); err != nil {
		return err
	}
	why, _ := io.ReadAll(io.LimitReader(answer.Body, 1000))
	return fmt.Errorf("the server answers %s: %s", answer.Status, bytes.TrimSpace(why))
}

// events writes the messages of a stream.
func (b *bridge) events(from io.Reader, hello bool) {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 64<<10), maxMessage)
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if rest, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			data = append(append(data, bytes.TrimPrefix(rest, []byte(" "))...), '\n')
		} else if len(line) == 0 && len(data) > 0 {
			b.say(data, hello)
			data = nil
		}
	}
}

// say writes one message, in one line.
func (b *bridge) say(raw []byte, hello bool) {
	var line bytes.Buffer
	if json.Compact(&line, raw) != nil {
		return
	}
	var told struct {
		Result struct {
			ProtocolVersion string `json:"protocolVersion"`
		} `json:"result"`
	}
	if hello {
		_ = json.Unmarshal(raw, &told) // an error has none
	}
	line.WriteByte('\n')
	b.mu.Lock()
	defer b.mu.Unlock()
	if told.Result.ProtocolVersion != "" {
		b.version = told.Result.ProtocolVersion
	}
	_, _ = b.out.Write(line.Bytes()) // a client that has gone needs no answer
}

// failed answers what could not be asked.
func (b *bridge) failed(ctx context.Context, m message, err error) {
	if m.ID == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return
	}
	err = b.remote.unreached(err)
	answer, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": m.ID, "error": map[string]any{"code": mcp.INTERNAL_ERROR, "message": err.Error()}})
	b.say(answer, false)
}
