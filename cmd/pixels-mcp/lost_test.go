package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	client "github.com/lxc/incus/v6/client"

	"pixels/internal/fakenet"
	"pixels/internal/testenv/incushttps"
)

// overHTTPS has the Incus of this machine answer by HTTPS for the test, and returns where, with the settings by which the command line
// reaches it at another address.
func overHTTPS(t *testing.T, at string) (address string, env []string) {
	t.Helper()
	local, err := client.ConnectIncusUnix("", nil)
	if err != nil {
		t.Fatal(err)
	}
	a := incushttps.Open(t, local, fmt.Sprintf("pixels-test-%d", os.Getpid()))
	return a.Address, []string{
		"PIXELS_INCUS_REMOTE=https://" + at, "PIXELS_INCUS_CLIENT_CERT=" + a.ClientCert, "PIXELS_INCUS_CLIENT_KEY=" + a.ClientKey, "PIXELS_INCUS_SERVER_CERT=" + a.ServerCert,
	}
}

// forward passes on each connection to another address, until the test ends.
func forward(t *testing.T, l net.Listener, to string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer from.Close()
				on, err := new(net.Dialer).DialContext(ctx, "tcp", to)
				if err != nil {
					return
				}
				defer on.Close()
				defer context.AfterFunc(ctx, func() { _ = errors.Join(from.Close(), on.Close()) })()
				go func() { _, _ = io.Copy(on, from); _ = on.(*net.TCPConn).CloseWrite() }()
				_, _ = io.Copy(from, on)
			}()
		}
	}()
}

// A console and a command on a remote Incus whose connection is lost, so that nothing comes and nothing is refused, end in a while: the
// terminal is as it was, the last line says why, and the session is there when the connection is.
func TestAConsoleWhoseConnectionIsLost(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "lost")
	space := fakenet.NewSpace(t)
	var l net.Listener
	var err error
	space.Do(func() { l, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	p.does("create", "far", "--egress", "none")
	address, env := overHTTPS(t, l.Addr().String())
	forward(t, l, address)
	inside := func(rules string) {
		t.Helper()
		c := exec.Command("nsenter", "--net="+space.Path(), "nft", "-f", "-")
		c.Stdin = strings.NewReader(rules)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	remote := &typist{t: t, program: p.program, owner: p.owner, env: env}
	w := newTerminal(remote, 100, 30)
	console := "nsenter --net=" + space.Path() + " pixels console far"
	w.types(console)
	w.shows("pixel@far:~$")
	w.types("echo mark-$((40+2))")
	w.shows("mark-42")

	command := exec.Command("nsenter", "--net="+space.Path(), p.program, "--owner", p.owner, "exec", "far", "sleep 1000")
	command.Env = append(os.Environ(), env...)
	var said strings.Builder
	command.Stdin, command.Stderr = strings.NewReader(""), &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, _, code := p.types("exec", "far", "pgrep -f 'sleep 100[0]'"); code == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("the command does not run")
		}
	}
	inside("table ip lost { chain out { type filter hook output priority 0; ip protocol tcp drop; }\n}\n")
	begun := time.Now()
	w.types("echo more") // which is not heard
	w.within(2 * time.Minute).shows("the console ended, and the session console of far goes on: ")
	t.Logf("a console without a connection ended after %s", time.Since(begun))
	if _ = command.Wait(); command.ProcessState.ExitCode() != 125 {
		t.Errorf("a command without a connection ended with %s: %s", command.ProcessState, said.String())
	}
	t.Logf("a command after %s: %s", time.Since(begun), said.String())
	w.clear()
	w.types("stty -a | grep -c ' icanon'; printf 'mouse-%s\\n' off")
	if screen := w.shows("mouse-off"); !strings.Contains(screen, "\n1\n") {
		t.Errorf("the terminal is not as it was:\n%s", screen)
	}
	inside("delete table ip lost")
	w.types(console)
	w.shows("mark-42")
}
