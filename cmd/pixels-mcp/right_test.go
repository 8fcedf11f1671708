package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"pixels/incus/incustest"
)

// A user who may not use Incus is told the one command that gives the right, and what that gives.
func TestAUserWithoutTheRightIsToldHowToGetIt(t *testing.T) {
	t.Parallel()
	incustest.Need(t)
	if os.Getuid() != 0 {
		t.Skip("to be another user takes root")
	}
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pixels-nobody-") // which nobody can read
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// By another process: a program that this one has open for writing while it starts another can't be run.
	if out, err := exec.Command("install", "-m", "0755", program, dir+"/pixels").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, args := range [][]string{{"list"}, {"create", "x"}, {"exec", "x", "true"}} {
		c := exec.CommandContext(t.Context(), "setpriv", append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "-i", "PATH=" + os.Getenv("PATH"), "HOME=/", "XDG_STATE_HOME=" + dir + "/state", "XDG_CONFIG_HOME=" + dir + "/config", dir + "/pixels"}, args...)...)
		out, _ := c.CombinedOutput() // the words tell
		for _, says := range []string{"this user may not use Incus", "`sudo usermod -aG incus-admin $USER`", "what root can"} {
			if !strings.Contains(string(out), says) {
				t.Errorf("%v does not say %q: %s", args, says, out)
			}
		}
		if strings.Contains(string(out), "setup`, which starts it") {
			t.Errorf("%v says that Incus does not run: %s", args, out)
		}
	}
}
