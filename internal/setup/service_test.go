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
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	page := free.Addr().String()
	_ = free.Close()
	const guest, stranger = "pxguest", "pxstranger"
	var said bytes.Buffer
	s := Service{Out: &said, Name: "pxservice", Program: program, Page: page, Member: guest}
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
