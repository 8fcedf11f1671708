package main

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pixels/policy/ledger"
)

// A client gives a server little environment, and a human's shell has much: both mean one place.
func TestOneInstallationIsOnePlace(t *testing.T) {
	place := func(env ...string) string {
		t.Helper()
		cmd := osexec.Command(self(t), "config")
		cmd.Env = append(env, asProgram+"=1", "PATH="+os.Getenv("PATH"))
		b, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v", b, err)
		}
		line, _, _ := strings.Cut(string(b), "\n")
		return line
	}
	with, without := place("HOME=/nonexistent"), place()
	if with != without || !strings.HasSuffix(without, "/.config/pixels/config.toml") {
		t.Errorf("with HOME %q, without %q", with, without)
	}

	dir := t.TempDir()
	other, err := ledger.Open(filepath.Join(dir, "other", "pixels", "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, _, err := other.Raise(ledger.Request{Owner: "me", Sandbox: "box", Lineage: "box", Subject: "example.com", Source: ledger.ByAgent}); err != nil {
		t.Fatal(err)
	}
	cmd := osexec.Command(self(t), "audit")
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, "mine"))
	b, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(b), "records and requests in "+filepath.Join(dir, "mine")) || !strings.Contains(string(b), "open questions in another place: 1; see `XDG_STATE_HOME="+filepath.Join(dir, "other")+" ") {
		t.Errorf("%s %v", b, err)
	}
}
