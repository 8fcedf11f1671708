package incus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/sandbox"
)

// soon waits until what must become true does.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("within 30 s it does not come true that %s", what)
		}
	}
}

// live waits until the events of a Backend come.
func live(t *testing.T, b *Backend) {
	t.Helper()
	soon(t, "events come", func() bool {
		b.cache.mu.Lock()
		defer b.cache.mu.Unlock()
		return b.cache.live
	})
}

func TestServersSeeEachOthersChanges(t *testing.T) {
	t.Parallel()
	a := realBackend(t)
	b := openBackend(t, Config{})
	live(t, b)
	made := box(t, a, "shared")
	get := func() sandbox.Sandbox {
		s, err := b.Get(t.Context(), made.Owner, "shared")
		if err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			t.Fatal(err)
		}
		return s
	}
	soon(t, "the other one sees it", func() bool { return get().State == sandbox.Running })
	if err := a.SetState(t.Context(), made.ID, sandbox.Stopped); err != nil {
		t.Fatal(err)
	}
	soon(t, "the other one sees it stopped", func() bool { return get().State == sandbox.Stopped })
	if err := a.SetState(t.Context(), made.ID, sandbox.Running); err != nil {
		t.Fatal(err)
	}
	soon(t, "the other one sees it running", func() bool { return get().State == sandbox.Running })
	at := time.Now().Add(5 * time.Hour).UTC().Truncate(time.Second)
	if err := b.SetExpiry(t.Context(), made.ID, at); err != nil {
		t.Fatal(err)
	}
	soon(t, "the first one sees its lease", func() bool {
		s, err := a.Get(t.Context(), made.Owner, "shared")
		return err == nil && s.ExpiresAt.Equal(at)
	})
	if err := a.Destroy(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	soon(t, "the other one sees its end", func() bool { return get().ID == "" })
}

func TestServersTakeOneNameAtOnce(t *testing.T) {
	t.Parallel()
	backends := []*Backend{realBackend(t), openBackend(t, Config{}), openBackend(t, Config{})}
	owner := fmt.Sprintf("test-share-%d", os.Getpid())
	var wg sync.WaitGroup
	var won atomic.Int32
	for _, b := range backends {
		wg.Go(func() {
			made, err := b.Create(context.Background(), sandbox.Spec{Name: "wanted", Owner: owner, Image: b.config.Image, Egress: egress.None})
			if err == nil {
				won.Add(1)
				t.Cleanup(func() { _ = b.Destroy(context.Background(), made.ID) }) // what is left the list below shows
			} else if !errors.Is(err, sandbox.ErrExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d have it", won.Load())
	}
	for _, b := range backends {
		soon(t, "all see one", func() bool {
			list, err := b.List(t.Context(), owner)
			return err == nil && len(list) == 1 && list[0].State == sandbox.Running
		})
	}
}

func TestWhatIsChangedByHandIsSeen(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	live(t, b)
	made := box(t, b, "by-hand")
	inst, etag, err := b.server.with(context.Background()).GetInstance(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	put := inst.Writable()
	put.Config[labelKeys+"hand"] = "made"
	put.Config[expiresKey] = "whenever"
	op, err := b.server.with(context.Background()).UpdateInstance(made.ID, put, etag)
	if _, err = finish(t.Context(), b.server, op, err); err != nil {
		t.Fatal(err)
	}
	soon(t, "the label is seen", func() bool {
		s, err := b.Get(t.Context(), made.Owner, made.Name)
		return err == nil && s.Labels["hand"] == "made" && s.ExpiresAt.IsZero()
	})
	if expired, err := b.Sweep(t.Context(), sandbox.SweepRules{}); err != nil {
		t.Errorf("with a lease that can't be read: %v, %v", expired, err)
	}
	if _, err := b.Get(t.Context(), made.Owner, made.Name); err != nil {
		t.Errorf("with a lease that can't be read it is gone: %v", err)
	}
	op, err = b.server.with(context.Background()).UpdateInstanceState(made.ID, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
	if _, err = finish(t.Context(), b.server, op, err); err != nil {
		t.Fatal(err)
	}
	soon(t, "it is seen to be stopped", func() bool {
		s, err := b.Get(t.Context(), made.Owner, made.Name)
		return err == nil && s.State == sandbox.Stopped
	})
	if err := remove(t.Context(), b.server, made.ID); err != nil {
		t.Fatal(err)
	}
	soon(t, "it is seen to be gone", func() bool {
		_, err := b.Get(t.Context(), made.Owner, made.Name)
		return errors.Is(err, sandbox.ErrNotFound)
	})
}

// counter is a way to the real Incus that counts calls, all and those that list operations, and can be cut.
type counter struct {
	socket string
	calls  atomic.Int64
	lists  atomic.Int64
	server *http.Server

	mu    sync.Mutex
	conns []net.Conn
}

// cut ends all connections, those of events too, which the server no longer knows.
func (c *counter) cut() {
	_ = c.server.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

func (c *counter) listen(t *testing.T) {
	t.Helper()
	_ = os.Remove(c.socket)
	l, err := net.Listen("unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "incus"})
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", DefaultSocket)
	}}
	c.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.calls.Add(1)
		if r.URL.Path == "/1.0/operations" {
			c.lists.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}), ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.conns = append(c.conns, conn)
		return ctx
	}}
	go func() { _ = c.server.Serve(l) }()
}

func TestLookingUpCostsNoCall(t *testing.T) {
	t.Parallel()
	first := realBackend(t)
	way := &counter{socket: filepath.Join(t.TempDir(), "socket")}
	way.listen(t)
	t.Cleanup(way.cut)
	b := openBackend(t, Config{Socket: way.socket})
	live(t, b)
	for i := range 3 {
		box(t, first, fmt.Sprintf("looked-up-%d", i))
	}
	owner := ownerOf(t)
	soon(t, "all are seen", func() bool {
		list, err := b.List(t.Context(), owner)
		return err == nil && len(list) == 3
	})
	time.Sleep(200 * time.Millisecond) // the last events
	cost := func(what string, most int64, do func()) {
		t.Helper()
		do() // reads what the last events said
		before := way.calls.Load()
		do()
		if n := way.calls.Load() - before; n > most {
			t.Errorf("%s costs %d calls", what, n)
		}
	}
	cost("100 look-ups", 1, func() {
		for range 100 {
			if _, err := b.Get(t.Context(), owner, "looked-up-1"); err != nil {
				t.Fatal(err)
			}
		}
	})
	cost("10 lists", 1, func() {
		for range 10 {
			if list, err := b.List(t.Context(), owner); err != nil || len(list) != 3 {
				t.Fatalf("%v, %v", list, err)
			}
		}
	})
	// Cut off, it says so and does not answer from memory; later it works again.
	way.cut()
	soon(t, "it notices", func() bool {
		_, err := b.Get(t.Context(), owner, "looked-up-1")
		return errors.Is(err, sandbox.ErrUnavailable)
	})
	made := box(t, first, "meanwhile")
	way.listen(t)
	soon(t, "it works again", func() bool {
		got, err := b.Get(t.Context(), owner, "meanwhile")
		return err == nil && got.ID == made.ID
	})
	live(t, b)
}
