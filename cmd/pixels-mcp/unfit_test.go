package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lxc/incus/v6/shared/api"
	"github.com/vishvananda/netlink"
)

// Each command says of an Incus that is too old that it is so, where that says of all that it doesn't know that it is not found.
func TestAnOldIncus(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "incus")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	old := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := api.ResponseRaw{Type: api.ErrorResponse, Error: "not found", Code: http.StatusNotFound}
		if strings.TrimSuffix(r.URL.Path, "/") == "/1.0" {
			answer = api.ResponseRaw{Type: api.SyncResponse, Status: "Success", StatusCode: http.StatusOK, Metadata: api.Server{
				ServerUntrusted: api.ServerUntrusted{Auth: "trusted"}, Environment: api.ServerEnvironment{ServerVersion: "0.7"},
			}}
		} else {
			w.WriteHeader(http.StatusNotFound)
		}
		_ = json.NewEncoder(w).Encode(answer)
	})}
	go func() { _ = old.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = old.Close() })
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	p := &typist{t: t, program: program, owner: "old", env: []string{"PIXELS_INCUS_SOCKET=" + socket}}
	const says = "Incus 0.7 is too old: install 6.0 or newer"
	for _, typed := range []string{"list", "create box", "status box", "destroy --force box", "setup --systemd=false"} {
		p.fails(exitFailed, says, strings.Fields(typed)...)
	}
	p.fails(exitExec, says, "exec", "box", "true")
	if out, _, code := p.types("doctor"); code != exitFailed || !strings.Contains(out, says) {
		t.Errorf("doctor: exit code %d: %s", code, out)
	}
}

// In a file of the first release defaults.network may name a bridge of the host's own, which the gateway can't sit on.
func TestANetworkThatIsNoBridgeOfIncus(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "bridge")
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = fmt.Sprintf("pxbr%d", os.Getpid())
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(bridge); err != nil {
			t.Error(err)
		}
	})
	p.env = []string{"PIXELS_DEFAULTS_NETWORK=" + bridge.Name}
	const mends = "name a bridge of Incus in the configuration (defaults.network)"
	p.fails(exitFailed, mends, "setup", "--systemd=false")
	if out, _, code := p.types("doctor"); code != exitFailed || !strings.Contains(out, mends) {
		t.Errorf("doctor: exit code %d: %s", code, out)
	}
	p.fails(exitFailed, "there is no gateway", "create", "box", "--egress", "allowlist")
	p.does("create", "box", "--egress", "none")
}

// On a terminal of 20 columns tables are cut to it, and what people are to type stands there in whole.
func TestANarrowTerminal(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "narrow")
	p.does("create", "box", "--egress", "allowlist")
	p.does("checkpoint", "create", "box", "--label", "a-label-of-some-length")
	p.does("network", "allow", "box", "a-name-of-some-length.example.com")
	id := strings.TrimSpace(p.does("exec", "-d", "box", "true"))
	w := newTerminal(p, 20, 60)
	for _, c := range []struct{ typed, whole string }{
		{"pixels list", "box"}, {"pixels checkpoint list box", "a-label-of-some-length"}, {"pixels logs --list box", id},
		{"pixels network grants box", "a-name-of-some-length.example.com"}, {"pixels network show box", "a-name-of-some-length.example.com"},
		{"pixels requests list", "nothing is asked"}, {"pixels status box", "allowlist"}, {"pixels audit --limit 3", "box"},
	} {
		w.clear()
		w.types(c.typed)
		screen := w.until(c.whole+" and a prompt", func(screen string) bool {
			return strings.Contains(screen, c.whole) && strings.HasSuffix(strings.TrimSpace(screen), "$")
		})
		if strings.Contains(screen, "panic") {
			t.Errorf("%s:\n%s", c.typed, screen)
		}
	}
}

// An output that can't be written is told as such, and is no fault of the sandbox's pool.
func TestAnOutputThatCantBeWritten(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "full")
	p.does("create", "box", "--egress", "none")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var said strings.Builder
	c := p.command(t.Context(), "exec", "box", "echo hi")
	c.Stdout, c.Stderr = full, &said
	if _ = c.Run(); c.ProcessState.ExitCode() != exitExec || !strings.Contains(said.String(), "its output can't be written: write /dev/stdout: no space left on device") || strings.Contains(said.String(), "pool") {
		t.Errorf("%s: %s", c.ProcessState, said.String())
	}
}
