package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/incus/incustest"
	"pixels/internal/view"
)

// typist is a person at the command line, who types pixels.
type typist struct {
	t       *testing.T
	program string
	owner   string
	env     []string
	in      string // stdin of the next command
}

// newTypist is one with an owner of their own, whose sandboxes are destroyed at the end.
func newTypist(t *testing.T, owner string) *typist {
	t.Helper()
	incustest.Need(t)
	p := &typist{t: t, program: filepath.Join(t.TempDir(), "pixels"), owner: fmt.Sprintf("%s-%d", owner, os.Getpid())}
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, p.program); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		left, err := p.command(ctx, "list", "-q").Output()
		if err != nil {
			t.Error(err)
		}
		if names := strings.Fields(string(left)); len(names) > 0 {
			if out, err := p.command(ctx, append([]string{"destroy", "--force"}, names...)...).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	})
	return p
}

// built is the program as users have it. Under the race detector each start of it takes a second of a core, which hundreds of commands
// would take from the tests beside them.
var built = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.Getenv("XDG_STATE_HOME"), "..", "pixels-mcp") // in the folder of these tests
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the program: %w: %s", err, out)
	}
	return filepath.Clean(path), nil
})

// raced has the typist use this test's own binary, in which the race detector looks at the program, too.
func (p *typist) raced() *typist {
	p.t.Helper()
	if err := errors.Join(os.Remove(p.program), os.Symlink(self(p.t), p.program)); err != nil {
		p.t.Fatal(err)
	}
	return p
}

func (p *typist) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, p.program, append([]string{"--owner", p.owner}, args...)...)
	c.Env = append(os.Environ(), p.env...)
	return c
}

// types runs a command, and returns what it said and its exit code.
func (p *typist) types(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	var out, errs bytes.Buffer
	c := p.command(p.t.Context(), args...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(p.in), &out, &errs
	p.in = ""
	_ = c.Run() // the exit code tells
	if c.ProcessState == nil {
		p.t.Fatalf("%v did not run", args)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// does runs a command that must succeed, and returns what it said on stdout.
func (p *typist) does(args ...string) string {
	p.t.Helper()
	out, errs, code := p.types(args...)
	if code != 0 {
		p.t.Fatalf("%v: exit code %d\n%s%s", args, code, out, errs)
	}
	return out
}

// fails runs a command that must fail in a way.
func (p *typist) fails(code int, says string, args ...string) {
	p.t.Helper()
	out, errs, got := p.types(args...)
	if got != code || !strings.Contains(errs, says) {
		p.t.Errorf("%v: exit code %d, want %d, and %q in:\n%s%s", args, got, code, says, out, errs)
	}
	if tool := toolName.FindString(errs); tool != "" && !strings.Contains(says, "copies") {
		p.t.Errorf("%v: it names the tool %s: %s", args, tool, errs)
	}
}

var toolName = regexp.MustCompile(`\b[a-z]+_(sandbox(es|_state)?|checkpoints?|files?|domain)\b`)

// The whole life of sandboxes, typed by a human.
func TestVerbsDoWhatTheySay(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "verbs").raced()
	says := func(want string, args ...string) {
		t.Helper()
		if out := p.does(args...); !strings.Contains(out, want) {
			t.Errorf("%v says %q, want %q", args, out, want)
		}
	}
	says("Created base in ", "create", "base", "--egress", "none", "--label", "for=test", "--ttl", "2h", "--cpu", "1", "--memory", "512")
	says("base:ready", "checkpoint", "create", "base", "--label", "ready", "--description", "all is there")
	out := p.does("create", "a", "b", "c", "--from", "base:ready")
	for _, name := range []string{"a", "b", "c"} {
		if !strings.Contains(out, "Created "+name+" in ") {
			t.Errorf("of %s it says nothing: %s", name, out)
		}
	}
	if got := p.does("list", "-q"); got != "a\nb\nbase\nc\n" {
		t.Errorf("there are %q", got)
	}
	var all []view.Sandbox
	if err := json.Unmarshal([]byte(p.does("list", "--json", "--label", "for=test")), &all); err != nil || len(all) != 1 || all[0].Name != "base" || all[0].Egress != "none" {
		t.Errorf("as JSON there is %+v, %v", all, err)
	}
	says("NAME", "list", "--state", "running")
	says("Stopped b in", "stop", "b")
	says("Stopped c in", "stop", "c", "b")
	says("Started b in", "start", "b")
	says("Paused a in", "pause", "a")
	says("a is paused", "status", "a")
	says("Resumed a in", "resume", "a")
	says("in 7d", "extend", "a", "7d")
	says("c is called d now", "rename", "c", "d")
	says("d is called c now", "rename", "d", "c")
	says("base has 1 core, 640MiB of memory", "resize", "base", "--memory", "640")
	says("ready", "checkpoint", "list", "base")
	if got := p.does("cp", "list", "-q", "base"); got != "ready\n" {
		t.Errorf("labels are %q", got)
	}
	says("Restored base to ready in", "cp", "restore", "base", "ready")
	says("checkpoint ready of base", "checkpoint", "delete", "base:ready")
	var one struct {
		view.Sandbox
		Network struct{ Mode string }
	}
	if err := json.Unmarshal([]byte(p.does("status", "--json", "base")), &one); err != nil || one.Name != "base" || one.Network.Mode != "none" || one.ExpiresAt.IsZero() {
		t.Errorf("its status is %+v, %v", one, err)
	}
	says("Destroyed c", "destroy", "--force", "a", "b", "c", "nobody")
	p.fails(3, `there are: base`, "status", "a")
}

// Each mistake is told in words of the command line, changes nothing, and has its exit code.
func TestMistakesWithVerbs(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "mistakes")
	p.does("create", "box", "--egress", "none")
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{2, "wants the name of a sandbox", []string{"create"}},
		{2, "lower-case letters", []string{"create", "Bad"}},
		{2, "lower-case letters", []string{"create", "-q", "ok-1", "../../etc"}},
		{2, "lower-case letters", []string{"create", strings.Repeat("a", 64)}},
		{2, "wants the name of a sandbox", []string{"create", ""}},
		{1, "already exists; choose another name, or first `pixels destroy box`", []string{"create", "box"}},
		{2, "--cpu", []string{"create", "x", "--cpu", "many"}},
		{2, "--memory", []string{"create", "x", "--memory", "much"}},
		{2, "--ttl", []string{"create", "x", "--ttl", "soon"}},
		{2, "KEY=VALUE", []string{"create", "x", "-e", "novalue"}},
		{2, "egress", []string{"create", "x", "--egress", "all"}},
		{2, "--from or --image", []string{"create", "x", "--from", "box", "--image", "y"}},
		{3, "it has none; `pixels checkpoint create", []string{"create", "x", "--from", "box:none"}},
		{3, "there are: box", []string{"create", "x", "--from", "nobody:none"}},
		{3, "there are: box", []string{"status", "nobody"}},
		{3, "there are: box", []string{"start", "nobody"}},
		{3, "not found", []string{"checkpoint", "delete", "box", "none"}},
		{2, "label of a checkpoint", []string{"checkpoint", "restore", "box"}},
		{2, "has no command", []string{"checkpoint", "craete", "box"}},
		{2, "copies no files yet", []string{"cp", "a.txt", "box:/tmp"}},
		{2, "give --force", []string{"destroy", "box"}},
		{2, "nothing to change", []string{"resize", "box"}},
		{2, "--disk", []string{"resize", "box", "--disk", "huge"}},
		{2, "1GiB or more", []string{"resize", "box", "--disk", "100MiB"}},
		{2, "lower-case letters", []string{"rename", "box", "Box"}},
		{2, "its new name", []string{"rename", "box"}},
		{3, "there are: box", []string{"rename", "nobody", "x"}},
		{2, "30m, 2h or 7d", []string{"extend", "box", "long"}},
		{2, "give 1m to", []string{"extend", "box", "1s"}},
		{2, "--json or --quiet", []string{"resume", "box", "--quiet", "--json"}},
	} {
		p.fails(c.code, c.says, c.args...)
	}
	if got := p.does("list", "-q"); got != "box\n" {
		t.Errorf("there are %q", got)
	}
	p.does("stop", "box")
	p.fails(1, "`pixels start box` mends it", "pause", "box")
}

// Of several who create one name at once, one wins.
func TestTwoCreateOneName(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "twice")
	results := make(chan string, 4)
	for range cap(results) {
		c := p.command(t.Context(), "create", "wanted", "--egress", "none")
		go func() {
			out, _ := c.CombinedOutput() // the words tell
			results <- string(out)
		}()
	}
	won := 0
	for range cap(results) {
		switch out := <-results; {
		case strings.Contains(out, "Created wanted"):
			won++
		case !strings.Contains(out, "already exists"):
			t.Errorf("it says %s", out)
		}
	}
	if got := p.does("list", "-q"); won != 1 || got != "wanted\n" {
		t.Errorf("%d won, and there is %q", won, got)
	}
}

// Clones are made side by side, and a command runs in each.
func TestACommandRunsInEachClone(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "clones").raced()
	p.does("create", "base", "--egress", "none")
	p.does("exec", "base", "echo data >file")
	p.does("checkpoint", "create", "base", "--label", "ready")
	out, errs, code := p.types("clone", "base:ready", "-n", "4", "--", `cat file; hostname; test "$(hostname)" != base-3`)
	if code != 1 {
		t.Errorf("exit code %d, %s", code, errs)
	}
	for i := 1; i <= 4; i++ {
		name, exit := fmt.Sprintf("base-%d", i), 0
		if i == 3 {
			exit = 1
		}
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^%s +%d +\S+ +%s$`, name, exit, name))
		if !strings.Contains(out, fmt.Sprintf("%s: exit code %d after", name, exit)) || !row.MatchString(out) {
			t.Errorf("of %s it says\n%s", name, out)
		}
	}
	if got := p.does("logs", "base-2"); got != "data\nbase-2\n" {
		t.Errorf("in a clone it said %q", got)
	}
	if got := p.does("clone", "-q", "base:ready", "red", "blue"); got != "red\nblue\n" {
		t.Errorf("made are %q", got)
	}
	var all []cloned
	if err := json.Unmarshal([]byte(p.does("clone", "--json", "base:ready", "--", "echo", "a b")), &all); err != nil || len(all) != 1 || all[0].Exec == nil || all[0].Exec.Stdout != "a b\n" {
		t.Errorf("as JSON it is %+v, %v", all, err)
	}
	p.fails(2, "SANDBOX:LABEL", "clone", "base")
	p.fails(2, "give 1 to 64", "clone", "base:ready", "-n", "65")
	p.fails(2, "--count", "clone", "base:ready", "-n", "many")
	p.fails(3, "it has: ready", "clone", "base:none")
	if out, errs, code := p.types("clone", "base:ready", "blue", "green"); code != 1 || !strings.Contains(out, "Created green") || !strings.Contains(errs, "blue was not made: sandbox \"blue\" already exists") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

// Where the policy wants a proof, who types is no better than an agent: what is more is put to a human.
func TestAHumanMustDecide(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "asks")
	config := t.TempDir()
	if err := os.MkdirAll(filepath.Join(config, "pixels"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "pixels", "policy.toml"), []byte("approval = \"passphrase\"\n[egress]\nmodes = [\"none\", \"allowlist\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.env = []string{"XDG_CONFIG_HOME=" + config, "XDG_STATE_HOME=" + t.TempDir()}
	out, errs, code := p.types("create", "box", "--egress", "allowlist", "--allow", "unheard.example.com")
	id := regexp.MustCompile(`req-[a-z0-9]+`).FindString(errs)
	if code != 5 || !strings.Contains(out, "Created box") || id == "" || !strings.Contains(errs, "`pixels wait "+id+"`") {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	p.fails(4, "denied by the policy", "create", "more", "--egress", "unrestricted")
	waited := make(chan string, 1)
	go func() {
		out, err := p.command(context.Background(), "wait", id).CombinedOutput()
		waited <- fmt.Sprintf("%s %v", out, err)
	}()
	p.does("requests", "deny", id, "--answer", "use the mirror")
	if got := <-waited; !strings.Contains(got, "denied use the mirror") || !strings.Contains(got, "exit status 4") {
		t.Errorf("who waits hears %s", got)
	}
	p.does("destroy", "--force", "box")
}

// What sleeps is shown so, and wakes when somebody types a command for it.
func TestWhatSleepsWakesForAHuman(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "sleeps")
	p.does("create", "box", "--egress", "none")
	sleeps := func() {
		t.Helper()
		p.does("stop", "box")
		id, err := exec.Command("incus", "list", "--format", "csv", "--columns", "n", "user.pixels.owner="+p.owner).Output()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("incus", "config", "set", strings.TrimSpace(string(id)), "user.pixels.idle=true").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	sleeps()
	if out := p.does("list"); !strings.Contains(out, "asleep") {
		t.Errorf("it is listed as %s", out)
	}
	if out, errs, code := p.types("exec", "box", "echo hi"); code != 0 || out != "hi\n" || errs != "box was not used for long: started again\n" {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	sleeps()
	w := newTerminal(p, 80, 24)
	w.types("pixels console box")
	if screen := w.ends("~$"); !strings.Contains(screen, "box was asleep: started in") {
		w.presses("C-\\")
		if screen := w.shows("left the session"); !strings.Contains(screen, "box was asleep: started in") {
			t.Errorf("that it was started is not said:\n%s", screen)
		}
	}
}
