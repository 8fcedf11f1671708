package incus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// box makes a sandbox for a test, which is gone afterwards.
func box(t *testing.T, b *Backend, name string) sandbox.Sandbox {
	t.Helper()
	return boxOf(t, b, sandbox.Spec{Name: name, Egress: egress.None})
}

// boxOf is box for a sandbox of some kind. What says whose it is and what it is made from is filled in.
func boxOf(t *testing.T, b *Backend, spec sandbox.Spec) sandbox.Sandbox {
	t.Helper()
	spec.Owner, spec.ExpiresAt = ownerOf(t), time.Now().Add(time.Hour)
	if spec.SourceID == "" {
		spec.Image = b.config.Image
	}
	made, err := b.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Destroy(context.Background(), made.ID); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			t.Error(err)
		}
		b.background.Wait()
	})
	return made
}

var owners struct {
	sync.Mutex
	numbers map[string]int
}

// ownerOf is whose sandboxes of a test are. No other test has it.
func ownerOf(t *testing.T) string {
	top, _, _ := strings.Cut(t.Name(), "/")
	owners.Lock()
	defer owners.Unlock()
	if owners.numbers == nil {
		owners.numbers = map[string]int{}
	}
	if _, ok := owners.numbers[top]; !ok {
		owners.numbers[top] = len(owners.numbers)
	}
	return fmt.Sprintf("test-incus-%d-%d", os.Getpid(), owners.numbers[top])
}

// sh runs a line as root and returns what it printed.
func sh(t *testing.T, b *Backend, id, line string) string {
	t.Helper()
	var out bytes.Buffer
	if code, err := b.Exec(t.Context(), id, sandbox.Command{Shell: line, User: "root", Stdout: &out}); err != nil || code > 1 {
		t.Fatalf("%s: exit code %d, %v", line, code, err)
	}
	return strings.TrimSpace(out.String())
}

// What a command started must end with it, however it tried to get away.
func TestCancelEndsTheWholeTree(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "tree")
	for name, line := range map[string]string{
		"a child of its own session": "setsid sleep 777 & sleep 778",
		"a child of sudo":            "sudo sleep 777",
		"a sudo in its own session":  "setsid sudo -n sh -c 'sleep 777; sleep 778' & sleep 779",
		"one without environment":    "env -i setsid -f /bin/sh -c 'sleep 777 & sleep 778'; sleep 779",
		"one that ignores signals":   "trap '' TERM INT HUP; sleep 777 & wait; sleep 778",
		"an orphan":                  "(setsid sleep 777 &) ; sleep 778",
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := b.Exec(ctx, made.ID, sandbox.Command{Shell: line}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("it ended with %v", err)
			}
			if left := sh(t, b, made.ID, "pgrep -a sleep"); left != "" {
				t.Errorf("left is %s", left)
			}
		})
	}
}

func TestAFolderThatCantBeEntered(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "folders")
	for _, cwd := range []string{"/absent", "/root", "/etc/passwd"} {
		var stdout, stderr bytes.Buffer
		code, err := b.Exec(t.Context(), made.ID, sandbox.Command{Shell: "echo ran", Cwd: cwd, Stdout: &stdout, Stderr: &stderr})
		if err != nil || code != sandbox.ExitNotExecutable || stdout.Len() > 0 || !strings.Contains(stderr.String(), "cwd "+cwd) {
			t.Errorf("%s: exit code %d, %v, %q, %q", cwd, code, err, stdout.String(), stderr.String())
		}
	}
	var stderr bytes.Buffer
	if code, err := b.Exec(t.Context(), made.ID, sandbox.Command{Argv: []string{"/etc/passwd"}, Stderr: &stderr}); err != nil || code != sandbox.ExitNotExecutable || !strings.Contains(stderr.String(), "/etc/passwd") {
		t.Errorf("what is no program: exit code %d, %v, %q", code, err, stderr.String())
	}
	if code, err := b.Exec(t.Context(), made.ID, sandbox.Command{Argv: []string{"absent"}, Cwd: "/usr"}); err != nil || code != sandbox.ExitNotFound {
		t.Errorf("a missing program elsewhere: exit code %d, %v", code, err)
	}
}

// A sandbox of an image that lacks our program gets it, and those that run at the same time don't disturb each other.
func TestTheProgramIsPutWhereItLacks(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "program")
	inst, etag, err := b.server.with(context.Background()).GetInstance(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	put := inst.Writable()
	put.Config["image."+programProperty] = "/usr/lib/pixels/pixels-init-of-before"
	op, err := b.server.with(context.Background()).UpdateInstance(made.ID, put, etag)
	if _, err := finish(t.Context(), b.server, op, err); err != nil {
		t.Fatal(err)
	}
	b.cache.touch(made.ID)
	code, err := b.exec(t.Context(), made.ID, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", "rm /usr/lib/pixels/*"}}, nil, nil, nil)
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v", code, err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var out bytes.Buffer
			if code, err := b.Exec(context.Background(), made.ID, sandbox.Command{Shell: "id -un", Stdout: &out}); err != nil || code != 0 || out.String() != "pixel\n" {
				t.Errorf("exit code %d, %v, %q", code, err, out.String())
			}
		})
	}
	wg.Wait()
	if left := sh(t, b, made.ID, "ls /usr/lib/pixels | wc -l"); left != "1" {
		t.Errorf("%s files were left there", left)
	}
}

func TestExecNeedsARunningSandbox(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "stopped")
	op, err := b.server.with(context.Background()).UpdateInstanceState(made.ID, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
	if _, err := finish(t.Context(), b.server, op, err); err != nil {
		t.Fatal(err)
	}
	_, err = b.Exec(t.Context(), made.ID, sandbox.Command{Argv: []string{"true"}})
	if !errors.Is(err, sandbox.ErrState) || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("exec in a stopped sandbox: %v", err)
	}
	if got, err := b.Get(t.Context(), made.Owner, made.Name); err != nil || got.State != sandbox.Stopped {
		t.Errorf("it is shown as %+v, %v", got, err)
	}
}

// What a killed process left half-made is not shown as good, keeps its name for a while, and then makes way.
func TestHalfMadeMakesWay(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	spec := sandbox.Spec{Name: "half", Owner: fmt.Sprintf("test-half-%d", os.Getpid()), Image: b.config.Image, Egress: egress.None}
	post, err := b.instance(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	op, err := b.server.with(context.Background()).CreateInstance(post)
	if _, err := finish(t.Context(), b.server, op, err); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(context.Background(), b.server, post.Name); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			t.Error(err)
		}
	})
	if got, err := b.Get(t.Context(), spec.Owner, spec.Name); err != nil || got.State != sandbox.Creating {
		t.Errorf("half-made it is %+v, %v", got, err)
	}
	m := manager.New(b, manager.Defaults{})
	if _, err := m.Exec(t.Context(), manager.Agent(spec.Owner), manager.ExecRequest{Name: spec.Name, Shell: "true"}); !errors.Is(err, sandbox.ErrState) {
		t.Errorf("exec in it: %v", err)
	}
	if _, err := b.Create(t.Context(), spec); !errors.Is(err, sandbox.ErrExists) {
		t.Errorf("while its maker may live: %v", err)
	}
	b.stale = 0
	made, err := b.Create(t.Context(), spec)
	if err != nil {
		t.Fatalf("once it is stale: %v", err)
	}
	if list, err := b.List(t.Context(), spec.Owner); err != nil || len(list) != 1 || list[0].ID != made.ID {
		t.Errorf("then there are %+v, %v", list, err)
	}
	if err := b.Destroy(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
}

// A command that is given to a sandbox while it boots finds it ready, with either first process.
func TestAnEarlyCommandFindsItReady(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	for kind, image := range images(t, b) {
		t.Run(kind, func(t *testing.T) {
			for n := range 3 {
				made, err := b.Create(t.Context(), sandbox.Spec{
					Name: "early", Owner: fmt.Sprintf("test-early-%d", os.Getpid()), Image: image, Egress: egress.Unrestricted, Early: true,
				})
				if err != nil {
					t.Fatal(err)
				}
				if made.Name != "early" || made.State != sandbox.Running {
					t.Errorf("it is %+v", made)
				}
				got := sh(t, b, made.ID, "hostname; grep -c '^eth0[[:space:]]*00000000' /proc/net/route; findmnt -no FSTYPE /run")
				if got != "early\n1\ntmpfs" {
					t.Errorf("round %d: a command finds %q", n, got)
				}
				if made.Address == "" {
					t.Errorf("round %d: its address is not known", n)
				}
				if err := b.Destroy(t.Context(), made.ID); err != nil {
					t.Error(err)
				}
			}
			b.background.Wait()
		})
	}
}
