package incus

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"pixels/internal/view"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// A link inside leads nowhere but inside, also for root's own view of the files.
func TestALinkInsideNeverLeadsOut(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "links")
	host := filepath.Join(t.TempDir(), "host-file")
	if err := os.WriteFile(host, []byte("of the host"), 0o666); err != nil {
		t.Fatal(err)
	}
	m := manager.New(b, manager.Defaults{})
	for _, target := range []string{host, strings.Repeat("../", 30) + host[1:], "/proc/1/root" + host, "/proc/self/root" + host, "/proc/1/cwd" + host} {
		sh(t, b, made.ID, "rm -f /home/pixel/link; ln -s "+target+" /home/pixel/link")
		r, err := m.ReadFile(t.Context(), manager.Agent(made.Owner), manager.ReadRequest{Name: made.Name, Path: "link"})
		if err == nil {
			t.Errorf("by a link to %s came %q", target, r.Content)
		}
		// Where the folders above are not there in the sandbox, they may be made: inside.
		_, _ = m.WriteFile(t.Context(), manager.Agent(made.Owner), manager.WriteRequest{Name: made.Name, Path: "link", Content: []byte("of the sandbox")})
		if got, err := os.ReadFile(host); err != nil || string(got) != "of the host" {
			t.Fatalf("by a link to %s the host's file became %q, %v", target, got, err)
		}
	}
	// A folder on the way that is a link.
	sh(t, b, made.ID, "ln -s "+filepath.Dir(host)+" /home/pixel/folder")
	if r, err := m.ReadFile(t.Context(), manager.Agent(made.Owner), manager.ReadRequest{Name: made.Name, Path: "folder/host-file"}); err == nil {
		t.Errorf("by a folder that is a link came %q", r.Content)
	}
}

// counting counts what is read from it.
type counting struct{ n int64 }

func (c *counting) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}

func TestALargeFileDoesNotEnterMemory(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "large")
	host := t.TempDir()
	f, err := os.Create(filepath.Join(host, "large"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 30
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), size-3); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var most uint64
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	m := manager.New(b, manager.Defaults{Policy: sandboxtest.OpenTo(t, host)})
	if got, err := m.CopyFiles(t.Context(), manager.Agent(made.Owner), manager.CopyRequest{Name: made.Name, HostPath: "large", Path: "large"}); err != nil || got.Bytes != size {
		t.Fatalf("in: %+v, %v", got, err)
	}
	if got := sh(t, b, made.ID, "stat -c %s /home/pixel/large; tail -c 3 /home/pixel/large"); got != "1073741824\nend" {
		t.Errorf("inside it is %q", got)
	}
	if got, err := m.CopyFiles(t.Context(), manager.Agent(made.Owner), manager.CopyRequest{Name: made.Name, Out: true, HostPath: "back", Path: "large"}); err != nil || got.Bytes != size {
		t.Errorf("out: %+v, %v", got, err)
	}
	end := make([]byte, 3)
	back, err := os.Open(filepath.Join(host, "back"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := back.ReadAt(end, size-3); err != nil || string(end) != "end" {
		t.Errorf("it came back with the end %q, %v", end, err)
	}
	_ = back.Close()
	cancel()
	<-watched
	// The tests beside it have some of that, and garbage that a busy machine leaves.
	if most > size*3/4 {
		t.Errorf("up to %d MiB of memory were taken", most>>20)
	}
	if _, err := m.ReadFile(t.Context(), manager.Agent(made.Owner), manager.ReadRequest{Name: made.Name, Path: "large"}); err == nil || !strings.Contains(view.Error(err, view.Agent), "exec") {
		t.Errorf("read whole: %v", err)
	}
}

func TestMuchOutputPassesThrough(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "output")
	const size = 100 << 20
	var out counting
	code, err := b.Exec(t.Context(), made.ID, sandbox.Command{Shell: "head -c 104857600 /dev/zero", Stdout: &out, Stderr: io.Discard})
	if err != nil || code != 0 || out.n != size {
		t.Errorf("exit code %d, %v, %d bytes", code, err, out.n)
	}
	m := manager.New(b, manager.Defaults{})
	r, err := m.Exec(t.Context(), manager.Agent(made.Owner), manager.ExecRequest{Name: made.Name, Shell: "echo first; yes | head -c 104857600; echo last"})
	if err != nil || !r.Truncated || len(r.Stdout) > 25_000 || !strings.HasPrefix(r.Stdout, "first\n") || !strings.HasSuffix(r.Stdout, "last\n") {
		t.Errorf("%d bytes, %+.100v, %v", len(r.Stdout), r, err)
	}
	id, err := m.StartRun(t.Context(), manager.Agent(made.Owner), manager.ExecRequest{Name: made.Name, Shell: "echo first; yes | head -c 104857600; echo last"})
	if err != nil {
		t.Fatal(err)
	}
	run, err := m.WaitRun(t.Context(), manager.Agent(made.Owner), manager.WaitRequest{ID: id, Wait: 40 * time.Second})
	if err != nil || run.ExitCode != 0 || !run.Truncated || !strings.HasPrefix(run.Stdout, "first\n") || !strings.HasSuffix(run.Stdout, "last\n") {
		t.Errorf("in the background: %d bytes, %+.100v, %v", len(run.Stdout), run, err)
	}
	run, err = m.WaitRun(t.Context(), manager.Agent(made.Owner), manager.WaitRequest{ID: id, Cursor: "104857600:0"})
	if err != nil || run.Stdout != "y\ny\ny\nlast\n" || run.More {
		t.Errorf("its end by cursor: %+v, %v", run, err)
	}
}
