package main

import (
	"bufio"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What users of the first release type works word for word, but for base; see also TestMCPOfTheFirstRelease.
func TestWhatUsersOfTheFirstReleaseType(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "table")
	for _, c := range []struct {
		typed string
		code  int
		says  string
	}{
		{"create box --image pixels/base --cpu 1 --memory 512 --egress allowlist --no-provision", 0, "pixels console box|nothing is installed into it"},
		{"create copy --from box", 0, "Created copy in"},
		{"stop box", 0, "Stopped box"},
		{"start box", 0, "Started box"},
		{"list", 0, "NAME|STATE|running|copy"},
		{"status box", 0, "box is running"},
		{"sessions box", 0, "has no session"},
		{"console box -s other", 0, ""},
		{"console box --no-persist", 0, ""},
		{"exec box -- true", 0, ""},
		{"exec box -- sh -c 'exit_3'", 127, "not found"},
		{"checkpoint create box", 0, "box:checkpoint-1"},
		{"checkpoint create box --label l", 0, "box:l"},
		{"create second --from box:l", 0, "Created second"},
		{"checkpoint list box", 0, "LABEL|SIZE|checkpoint-1"},
		{"checkpoint restore box l", 0, "Restored box to l in"},
		{"checkpoint delete box l", 0, "Deleted checkpoint l of box"},
		{"cp list box", 0, "checkpoint-1"},
		{"cp create box --label again", 0, "box:again"},
		{"cp restore box again", 0, "Restored box"},
		{"cp delete box again", 0, "Deleted"},
		{"network show box", 0, "allowlist"},
		{"network allow box api.example.com", 0, "api.example.com"},
		{"network deny box api.example.com", 0, "api.example.com"},
		{"network deny box never-allowed.example.com", 0, "never-allowed.example.com"},
		{"network set box agent", 0, "agent"},
		{"network set box unrestricted --yes", 0, "unrestricted"},
		{"network allow box api.example.com", 0, "api.example.com"},
		{"network show box", 0, "api.example.com"},
		{"list -v", 0, "box"},
		{"-h", 0, "console"},
		{"help exec", 0, "exec"},
		{"completion bash", 0, "bash completion"},
		{"completion zsh", 0, "#compdef"},
		{"completion fish", 0, "fish completion"},
		{"completion powershell", 0, "powershell completion"},
		{"destroy box --force", 0, "Destroyed box"},
		{"destroy copy --force", 0, "Destroyed copy"},
		{"destroy second", 2, "--force"},
		{"base list", 2, "is not there yet"},
	} {
		out, errs, code := p.types(strings.Fields(c.typed)...)
		for _, says := range strings.Split(c.says, "|") {
			if code != c.code || !strings.Contains(out+errs, says) {
				t.Errorf("%s: exit code %d, and %q in:\n%s%s", c.typed, code, says, out, errs)
				break
			}
		}
	}
}

// mcp serves by HTTP, and takes the flags that it had; it asks for a token, which the first release did not.
func TestMCPOfTheFirstRelease(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	server := exec.Command(self(t), "mcp", "--listen-addr", "127.0.0.1:0", "--pid-file", pid, "--state-file", "x", "-v")
	log, err := server.StderrPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines, said, at := bufio.NewScanner(log), "", ""
	for at == "" && lines.Scan() {
		said += lines.Text() + "\n"
		at, _ = strings.CutPrefix(lines.Text(), "MCP:  ")
		if !strings.HasPrefix(at, "http://") {
			at = ""
		}
	}
	go func() {
		for lines.Scan() { // what it says else is nobody's
		}
	}()
	if !strings.Contains(said, "--state-file is not needed") || !strings.HasSuffix(at, "/mcp") {
		t.Errorf("it says %s", said)
	}
	if b, err := os.ReadFile(pid); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(server.Process.Pid) {
		t.Errorf("the file of its ID: %q, %v", b, err)
	}
	if out, err := exec.Command(self(t), "mcp", "--pid-file", pid).CombinedOutput(); err == nil || !strings.Contains(string(out), "is running") {
		t.Errorf("a second one: %s, %v", out, err)
	}
	for path, want := range map[string]int{"/mcp": http.StatusUnauthorized, "/healthz": http.StatusOK} {
		answer, err := http.Get(strings.TrimSuffix(at, "/mcp") + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(30*time.Second, func() { _ = server.Process.Kill() })
	defer late.Stop()
	if err := server.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if _, err := os.Stat(pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of its ID is left: %v", err)
	}
}
