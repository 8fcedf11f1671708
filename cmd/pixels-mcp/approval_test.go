package main

import (
	"bytes"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What proves an approval can be set up anew by its owner when it is lost, and until then approves nothing.
func TestALostProofIsSetUpAnew(t *testing.T) {
	dir := t.TempDir()
	run := func(stdin string, args ...string) (string, error) {
		cmd := osexec.Command(self(t), append([]string{"approval"}, args...)...)
		cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+dir, "XDG_CONFIG_HOME="+dir)
		cmd.Stdin = strings.NewReader(stdin)
		var b bytes.Buffer
		cmd.Stdout, cmd.Stderr = &b, &b
		err := cmd.Run()
		return b.String(), err
	}
	if out, err := run("correct horse battery\ncorrect horse battery\n", "passphrase"); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	if out, err := run("wrong\nanother passphrase\nanother passphrase\n", "passphrase"); err == nil || !strings.Contains(out, "that is not the passphrase") {
		t.Errorf("%s %v", out, err)
	}
	if err := os.Remove(filepath.Join(dir, "pixels", "approver.json")); err != nil {
		t.Fatal(err)
	}
	if out, err := run("", "show"); err == nil || !strings.Contains(out, "is lost") || !strings.Contains(out, "; set it up anew with `pixels-mcp approval passphrase`") {
		t.Errorf("%s %v", out, err)
	}
	if out, err := run("another passphrase\nanother passphrase\n", "passphrase"); err != nil || !strings.Contains(out, "is lost") {
		t.Errorf("%s %v", out, err)
	}
	if out, err := run("", "show"); err != nil || !strings.Contains(out, "passphrase: set") {
		t.Errorf("%s %v", out, err)
	}
}
