package main

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lxc/incus/v6/shared/api"
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
