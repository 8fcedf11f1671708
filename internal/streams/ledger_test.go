package streams

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"pixels/egress"
	"pixels/internal/fault"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// open returns a manager with a ledger, and how an owner asks it.
func open(t *testing.T) (*manager.Manager, func(owner string) *Client) {
	t.Helper()
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	m := manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Allowlist, Policy: sandboxtest.Policy(t, ""), Store: store})
	return m, func(owner string) *Client {
		s := New(m, func(*http.Request) manager.Caller { return manager.Agent(owner) }, zerolog.Nop())
		h := httptest.NewServer(s)
		t.Cleanup(h.Close)
		return NewClient(func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", h.Listener.Addr().String())
		}, nil)
	}
}

// An owner sees what they asked for and what is on record about them, and nothing of others'.
func TestOwnersSeeTheirOwn(t *testing.T) {
	m, as := open(t)
	ctx := t.Context()
	if _, err := m.Create(ctx, manager.Agent("mine"), manager.CreateRequest{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	asked, err := m.Allow(ctx, manager.Agent("mine"), manager.AllowRequest{Name: "box", Domains: []string{"unheard.example.com"}, Reason: "tests"})
	if err != nil || len(asked.Requests) != 1 {
		t.Fatalf("%+v, %v", asked, err)
	}
	id := asked.Requests[0].ID
	mine, other := as("mine"), as("other")
	list, err := mine.Requests(ctx, false)
	if err != nil || len(list) != 1 || list[0].ID != id || list[0].Handle == "" || list[0].For == "" {
		t.Errorf("%+v, %v", list, err)
	}
	if q, err := mine.Request(ctx, id); err != nil || q.Subject != list[0].Subject {
		t.Errorf("%+v, %v", q, err)
	}
	records, err := mine.Records(ctx, ledger.Query{Sandbox: "box"})
	if err != nil || len(records) == 0 {
		t.Errorf("%+v, %v", records, err)
	}

	if list, err := other.Requests(ctx, true); err != nil || len(list) != 0 {
		t.Errorf("another sees %+v, %v", list, err)
	}
	if q, err := other.Request(ctx, id); !errors.Is(err, fault.NotFound) || q.Subject != "" {
		t.Errorf("another sees %+v, %v", q, err)
	}
	if records, err := other.Records(ctx, ledger.Query{Owner: "mine"}); err != nil || len(records) != 0 {
		t.Errorf("another sees %+v, %v", records, err)
	}
	if _, err := other.Records(ctx, ledger.Query{Sandbox: "box"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("another is told of the sandbox: %v", err)
	}
	if _, err := other.Stream(ctx, manager.ExecRequest{Name: "box", Shell: "true"}, manager.Streams{}); !errors.Is(err, fault.NotFound) {
		t.Errorf("another's command: %v", err)
	}
}
