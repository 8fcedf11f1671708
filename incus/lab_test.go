package incus

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/lxc/incus/v6/client"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fakenet"
	"pixels/sandbox"
)

// lab is a ground with real sandboxes on the wires of its gateway, and a Backend of its own.
type lab struct {
	*Backend
	*ground
	boxes    map[string]string  // IDs by name
	weakened gateway.Protection // the protection that is off
	subject  string             // the box that tries ways past wires
}

const (
	allowedName = "allowed.example.com"
	deniedName  = "denied.example.com" // on the same server as the allowed one, as behind a shared front
)

// newLab makes a lab whose internet is on the network itself, where all that leaves a sandbox or the gateway is counted.
func newLab(t *testing.T) *lab {
	t.Helper()
	realBackend(t) // or the test is over
	return labOn(t, takeGround(t))
}

// routed is held by the one lab that has the networks of newRoutedLab.
var routed sync.Mutex

// newRoutedLab makes a lab whose internet is behind this machine and its NAT, as the real one is. There is one at a time.
func newRoutedLab(t *testing.T) *lab {
	t.Helper()
	realBackend(t)
	routed.Lock()
	t.Cleanup(routed.Unlock)
	g := newGround(t, mostGrounds)
	t.Cleanup(g.keeper.close)
	g.place = func(*gateway.Config) {}
	g.build(func() {
		g.inet.Link("up0", fmt.Sprintf("pxi%d", os.Getpid()), netip.MustParsePrefix("203.0.113.2/30"), netip.MustParsePrefix("203.0.113.1/30"))
	})
	return labOn(t, g)
}

func labOn(t *testing.T, g *ground) *lab {
	t.Helper()
	l := &lab{ground: g, boxes: map[string]string{}, subject: "one"}
	l.inet.Name(allowedName, fakenet.Site)
	l.inet.Name(deniedName, fakenet.Site)
	l.Backend = openBackend(t, g.settings)
	return l
}

// attempt is the program that tries ways out, and weak the gateway's with its protections to be switched off.
var (
	attempt = sync.OnceValues(func() ([]byte, error) { return program("./testdata/attempt") })
	weak    = sync.OnceValues(func() ([]byte, error) { return program("pixels/cmd/pixels-gateway", "-tags", "pixels_weak") })
)

// program builds a program for instances.
func program(what string, flags ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "pixels-test-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	at := filepath.Join(dir, "program")
	build := exec.Command("go", append(append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", at}, flags...), what)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", what, err, out)
	}
	return os.ReadFile(at)
}

// box makes a sandbox in which attempts can be run.
func (l *lab) box(t *testing.T, name string, mode egress.Mode, allow ...string) sandbox.Sandbox {
	t.Helper()
	made := boxOf(t, l.Backend, sandbox.Spec{Name: name, Egress: mode, Rules: grantsOf(t, allow...)})
	l.equip(t, made.ID)
	l.boxes[name] = made.ID
	return made
}

func (l *lab) equip(t *testing.T, id string) {
	t.Helper()
	content, err := attempt()
	if err != nil {
		t.Fatal(err)
	}
	err = l.server.with(context.Background()).CreateInstanceFile(id, "/usr/local/bin/attempt", client.InstanceFileArgs{Content: bytes.NewReader(content), Mode: 0o755, Type: "file"})
	if err != nil {
		t.Fatal(err)
	}
}

func grantsOf(t *testing.T, texts ...string) (out []egress.Grant) {
	t.Helper()
	for _, text := range texts {
		r, err := egress.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, egress.Grant{Rule: r, From: "test"})
	}
	return out
}

// try runs an attempt as root in a sandbox, and returns what it printed.
func (l *lab) try(t *testing.T, box string, args ...string) string {
	t.Helper()
	return l.run(t, box, append([]string{"attempt"}, args...)...)
}

// run runs a command as root in a sandbox, and returns what it printed.
func (l *lab) run(t *testing.T, box string, argv ...string) string {
	t.Helper()
	var out both
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := l.Exec(ctx, l.boxes[box], sandbox.Command{Argv: argv, User: "root", Stdout: &out, Stderr: &out}); err != nil {
		t.Fatalf("%s: %v: %v", box, argv, err)
	}
	return out.String()
}

// set changes what a sandbox may reach.
func (l *lab) set(t *testing.T, box string, mode egress.Mode, allow ...string) (cut int) {
	t.Helper()
	cut, err := l.SetEgress(t.Context(), l.boxes[box], func(egress.Mode, []egress.Grant) (egress.Mode, []egress.Grant, error) {
		return mode, grantsOf(t, allow...), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return cut
}

// forget has the internet begin anew.
func (l *lab) forget() {
	l.inet.Seen()
	l.packets.Seen()
}

// seen returns what the internet's servers saw since, without what is fine.
func (l *lab) seen(fine ...string) string {
	time.Sleep(50 * time.Millisecond) // for what is on its way
	var out []string
	for _, line := range l.inet.Seen() {
		if !slices.Contains(fine, line) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "; ")
}

// arrived returns what packets arrived at the internet since, without those whose line ends so.
func (l *lab) arrived(fine ...string) string {
	var out []string
	for line, n := range l.packets.Seen() {
		if !slices.ContainsFunc(fine, func(end string) bool { return strings.HasSuffix(line, end) }) {
			out = append(out, fmt.Sprintf("%d of %s", n, line))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// both takes a command's two outputs, which come at once.
type both struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *both) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *both) String() string { return w.b.String() }

// got returns what an attempt printed when it has what only a success prints.
func got(printed string, marks ...string) string {
	if slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(printed, mark) }) {
		return printed
	}
	return ""
}
