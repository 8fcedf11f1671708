package setup

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixels/incus/incustest"
	"pixels/internal/server"
)

// freeAddress is one of this machine on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The server under a user of its own: an agent with a shell under another user uses it, and can do nothing besides.
func TestTheServiceIsTheOnlyWay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this makes system users")
	}
	incustest.Need(t)
	program := filepath.Join(t.TempDir(), "pixels-mcp")
	if out, err := exec.Command("go", "build", "-o", program, "pixels/cmd/pixels-mcp").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	page, byHTTP := freeAddress(t), freeAddress(t)
	const guest, stranger = "pxguest", "pxstranger"
	var said bytes.Buffer
	s := Service{Out: &said, Name: "pxservice", Program: program, Page: page, HTTP: byHTTP, Member: guest}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		end, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		if err := RemoveService(end, s, true); err != nil {
			t.Error(err)
		}
		for _, name := range []string{guest, stranger} {
			if err := run(end, "userdel", name); err != nil {
				t.Error(err)
			}
		}
	})
	for _, name := range []string{guest, stranger} {
		if _, err := user.Lookup(name); err == nil {
			continue // of a test that was killed
		}
		if err := run(ctx, "useradd", "--system", "--user-group", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second brings it up to date
		if err := InstallService(ctx, s, "# the test's\n"); err != nil {
			t.Fatalf("%v\n%s", err, said.String())
		}
	}
	d, err := s.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	as := func(name string, argv ...string) []string {
		return append([]string{"--reuid", name, "--regid", name, "--init-groups", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}, argv...)
	}
	c, err := server.Start(ctx, "setpriv", as(guest, d.binary(), "serve", "--bridge", d.socket())...)
	if err != nil {
		log, _ := os.ReadFile(d.home() + "/log")
		t.Fatalf("%v\n%s", err, log)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	var box struct{ Name, Owner, State string }
	if err := c.Call(ctx, "create_sandbox", map[string]any{"egress": "none"}, &box); err != nil || box.Owner != guest || box.State != "running" {
		t.Fatalf("%+v, %v", box, err)
	}
	if err := c.Call(ctx, "destroy_sandbox", map[string]any{"names": []string{box.Name}}, nil); err != nil {
		t.Error(err)
	}
	playStreams(t, func(env string, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "setpriv", as(guest, append([]string{env, d.binary(), "--service", d.socket()}, args...)...)...)
	}, d.home())
	playVerbs(t, "has a service", func(args ...string) (string, int) {
		c := exec.CommandContext(ctx, "setpriv", as(guest, append([]string{d.binary(), "--service", d.socket()}, args...)...)...)
		out, _ := c.CombinedOutput() // the exit code tells
		return string(out), c.ProcessState.ExitCode()
	})
	// The same from another machine, as far as HTTP can tell.
	secret, err := exec.CommandContext(ctx, "setpriv", as(d.Name, "HOME="+d.home(), d.binary(), "token", "create", "far")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	far := []string{"PIXELS_SERVER=http://" + byHTTP, "PIXELS_TOKEN=" + strings.TrimSpace(string(secret))}
	playStreams(t, func(env string, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "setpriv", as(guest, append(append(far, env, d.binary()), args...)...)...)
	}, d.home())
	playVerbs(t, "a token decides nothing", func(args ...string) (string, int) {
		c := exec.CommandContext(ctx, "setpriv", as(guest, append(append(far, d.binary()), args...)...)...)
		out, _ := c.CombinedOutput() // the exit code tells
		return string(out), c.ProcessState.ExitCode()
	})
	records, err := exec.CommandContext(ctx, "setpriv", "--reuid", d.Name, "--regid", d.Name, "--init-groups", "env", "-i", "HOME="+d.home(), d.binary(), "audit", "--json").Output()
	if err != nil || !strings.Contains(string(records), `"channel":"cli"`) || strings.Contains(strings.ReplaceAll(string(records), " ", ""), `"human":true`) {
		t.Errorf("what a user did by the command line is on record as %.2000s, %v", records, err)
	}
	for _, way := range []string{
		"cat " + d.policy(), "echo >> " + d.policy(), "ls " + d.home(), "cat " + d.home() + "/.local/state/pixels/pixels.db", "cat " + d.home() + "/.local/state/pixels/web-token",
		"echo >> " + d.binary(), "echo >> " + d.script(), "rm " + d.socket(), d.binary() + " clean", d.binary() + " serve --direct --owner root </dev/null && " + d.binary() + " network show x",
		"incus list", d.binary() + " requests list", d.binary() + " web --token",
	} {
		out, err := exec.CommandContext(ctx, "setpriv", as(guest, "sh", "-c", way)...).CombinedOutput()
		if err == nil {
			t.Errorf("%s: %s", way, out)
		}
	}
	out, err := exec.CommandContext(ctx, "setpriv", as(stranger, "sh", "-c", d.binary()+" serve --bridge "+d.socket()+" </dev/null")...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not open to this user") {
		t.Errorf("who was not let in: %s, %v", out, err)
	}
	// The page answers, and its token is the service's.
	token, err := exec.CommandContext(ctx, "setpriv", "--reuid", d.Name, "--regid", d.Name, "--clear-groups", "env", "-i", "HOME="+d.home(), d.binary(), "web", "--token").Output()
	if err != nil || len(strings.TrimSpace(string(token))) < 20 {
		t.Errorf("%s, %v", token, err)
	}
	conn, err := net.Dial("tcp", page)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", page)
	b := make([]byte, 100)
	if _, err := conn.Read(b); err != nil || !strings.Contains(string(b), "200 OK") {
		t.Errorf("%s, %v", b, err)
	}
}

// playVerbs is a user of the service with a shell, or an agent that runs as that user: each verb is that of an owner, and none that of
// a human.
func playVerbs(t *testing.T, refusal string, pixels func(args ...string) (said string, code int)) {
	t.Helper()
	for _, c := range []struct {
		code  int
		says  string
		typed string
	}{
		{0, "Created work in", "create work --egress none --label a=b"},
		{0, "work", "list -q"},
		{0, "work is running", "status work"},
		{0, "work:ready", "checkpoint create work --label ready"},
		{0, "ready", "checkpoint list work -q"},
		{0, "Created two in", "create one two --from work:ready"},
		{0, "work-1: exit code 0 after", "clone work:ready -n 1 -- true"},
		{1, "work-2: exit code 1 after", "clone work:ready -n 1 -- false"},
		{0, "Restored work to ready", "checkpoint restore work ready"},
		{0, "Stopped one", "stop one"},
		{0, "Started one", "start one"},
		{0, "Paused one", "pause one"},
		{0, "Resumed one", "resume one"},
		{0, "in 2h", "extend one 2h"},
		{0, "one is called uno now", "rename one uno"},
		{0, "uno has 1 core", "resize uno --cpu 1"},
		{0, "work.", "exec -d work sleep 1000"},
		{0, "work:ready", "__complete create x --from wo"},
		{0, "work:ready", "__complete clone work:"},
		{0, "Deleted checkpoint", "checkpoint delete work ready"},
		{3, "not found; there are: two, uno", "status nobody"},
		{1, "already exists", "create uno"},
		{4, "denied by the policy", "create wide --egress unrestricted"},
		{5, "a human must decide about req-", "create asks --egress allowlist --allow unheard.example.com"},
		{2, "can't say otherwise", "list --owner root"},
		{0, "hello", "exec uno echo hello"},
		{1, "", "exec uno false"},
		{125, "there are: asks, two, uno", "exec nobody true"},
		{0, "has no session", "sessions uno"},
		{0, "nothing runs in uno", "logs --list uno"},
		{0, "sleep 1000", "logs --list work"},
		{0, "egress allowlist", "network show asks"},
		{0, "unheard.example.com", "network show asks"},
		{5, "a human must decide about req-", "network allow asks other.example.com --reason tests"},
		{0, "other.example.com", "requests list"},
		{0, "req-", "__complete requests show req"},
		{0, "unheard.example.com", "requests list --json"},
		{0, "not allowed before: third.example.com", "network deny asks third.example.com"},
		{0, "egress none", "network set asks none"},
		{0, "create_sandbox", "audit --sandbox asks"},
		{2, "no record of a sandbox", "audit --sandbox nobody"},
		// What is a human's, and what reaches for Incus itself.
		{4, "network set uno unrestricted", "network set uno unrestricted --yes"},
		{3, "no such request", "requests show req-aaaaaaaaaa"},
		{1, refusal, "network revoke uno example.com"},
		{1, refusal, "network grants"},
		{1, refusal, "requests watch"},
		{1, refusal, "requests deny req-aaaaaaaaaa"},
		{1, refusal, "network check uno example.com"},
		{1, refusal, "approval passphrase"},
		{1, refusal, "approval show"},
		{1, refusal, "web --token"},
		{1, refusal, "policy check --as root list_sandboxes {}"},
		{1, refusal, "audit verify"},
		{1, refusal, "requests approve req-aaaaaaaaaa"},
		{1, refusal, "requests revoke req-aaaaaaaaaa"},
		{1, "may not use Incus", "list --direct"},
		{0, "Destroyed work", "destroy --force work work-1 work-2 two uno asks"},
	} {
		said, code := pixels(strings.Fields(c.typed)...)
		if code != c.code || !strings.Contains(said, c.says) || strings.Contains(said, "ERROR") {
			t.Errorf("%s: exit code %d, want %d, and %q in:\n%s", c.typed, code, c.code, c.says, said)
		}
	}
}
