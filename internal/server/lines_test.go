package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"pixels/egress"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
	"pixels/tools"
)

// liner is a client that speaks in lines, and keeps all that it hears.
type liner struct {
	in    io.WriteCloser
	mu    sync.Mutex
	heard []string
	more  *sync.Cond
}

func newLiner(t *testing.T, m *manager.Manager, owner, capabilities string, edit ...func(*Server)) *liner {
	t.Helper()
	fromClient, in := io.Pipe()
	fromServer, out := io.Pipe()
	l := &liner{in: in}
	l.more = sync.NewCond(&l.mu)
	session := tools.Session{Manager: m, Operations: tools.NewOperations(context.Background()), Caller: manager.Agent(owner)}
	ended := make(chan error, 1)
	server := New("test", session, zerolog.Nop())
	for _, edit := range edit {
		edit(server)
	}
	go func() {
		err := server.Serve(WithOwner(context.Background(), owner), fromClient, out)
		_ = out.Close()
		ended <- err
	}()
	go func() {
		for lines := bufio.NewScanner(fromServer); lines.Scan(); {
			l.mu.Lock()
			l.heard = append(l.heard, lines.Text())
			l.more.Broadcast()
			l.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	l.say(t, `{"jsonrpc":"2.0","id":"hello","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":`+capabilities+`,"clientInfo":{"name":"t","version":"1"}}}`)
	l.await(t, `"id":"hello"`)
	l.say(t, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	return l
}

func (l *liner) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(l.in, text+"\n"); err != nil {
		t.Fatal(err)
	}
}

// await returns the first line with some words in it, and what came before.
func (l *liner) await(t *testing.T, words string) (line string, before []string) {
	t.Helper()
	late := time.AfterFunc(10*time.Second, l.more.Broadcast)
	defer late.Stop()
	deadline := time.Now().Add(10 * time.Second)
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for i, line := range l.heard {
			if strings.Contains(line, words) {
				return line, l.heard[:i]
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is never said, but %q", words, l.heard)
		}
		l.more.Wait()
	}
}

// Clients of one process, as those of the service are, hear nothing of each other: neither progress, which has output in it, nor questions,
// whose answers decide.
func TestClientsOfOneProcessNeverMeet(t *testing.T) {
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	m := manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Store: store})
	const form = `{"elicitation":{"form":{}}}`
	alice, bob := newLiner(t, m, "alice", form), newLiner(t, m, "bob", form) // who came last
	alice.say(t, toolCall(1, "create_sandbox", `{"name":"box"}`, ""))
	alice.await(t, `"id":1`)
	for i := range 20 {
		alice.say(t, toolCall(100+i, "exec", fmt.Sprintf(`{"name":"box","command":"echo secret-%d; sleep 0.3; echo last-%d"}`, i, i), fmt.Sprintf(`"progressToken":%d`, i)))
	}
	alice.say(t, toolCall(2, "allow_domain", `{"name":"box","domains":["example.com"],"reason":"to try"}`, ""))
	asked, _ := alice.await(t, "elicitation/create")
	var question struct{ ID json.RawMessage }
	if err := json.Unmarshal([]byte(asked), &question); err != nil {
		t.Fatal(err)
	}
	// The other client answers it, as it would have asked itself.
	bob.say(t, fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{"action":"accept","content":{"choice":"8 hours"}}}`, question.ID))
	bob.say(t, `{"jsonrpc":"2.0","id":"seen","method":"ping"}`)
	bob.await(t, `"id":"seen"`)
	alice.say(t, fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{"action":"accept","content":{"choice":"deny"}}}`, question.ID))
	if line, _ := alice.await(t, `"id":2`); !strings.Contains(line, "denied") {
		t.Errorf("another's answer decided: %s", line)
	}
	for i := range 20 {
		_, before := alice.await(t, fmt.Sprintf(`"id":%d`, 100+i))
		text := strings.Join(before, "\n")
		if !strings.Contains(text, fmt.Sprintf("secret-%d", i)) {
			t.Errorf("call %d was answered before its progress was told", i)
		}
	}
	bob.mu.Lock()
	defer bob.mu.Unlock()
	if len(bob.heard) != 2 { // hello, and its ping
		t.Errorf("bob heard %q", bob.heard)
	}
}
