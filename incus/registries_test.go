package incus

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pixels/egress"
	"pixels/sandbox"
)

// What this machine gets its packages from works inside a sandbox, by rules that name it; and nothing else does.
func TestPackageRegistriesWorkInside(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	hosts := map[string]string{} // what of
	add := func(what, text string) {
		for _, found := range regexp.MustCompile(`https?://[^\s,|\]"]+`).FindAllString(text, -1) {
			if u, err := url.Parse(found); err == nil && strings.Contains(u.Hostname(), ".") {
				host := u.Hostname()
				if u.Port() != "" {
					host += ":" + u.Port()
				}
				hosts[host] = what
			}
		}
	}
	output := func(name string, args ...string) string {
		out, _ := exec.Command(name, args...).Output()
		return string(out)
	}
	registry, proxy := strings.TrimSpace(output("npm", "config", "get", "registry")), strings.TrimSpace(output("go", "env", "GOPROXY"))
	add("npm", registry)
	add("go", proxy)
	box := boxOf(t, b, sandbox.Spec{Name: "packages", Egress: egress.None})
	add("apt", sh(t, b, box.ID, "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null; true"))
	var allow []string
	for host := range hosts {
		allow = append(allow, host)
	}
	box = boxOf(t, b, sandbox.Spec{Name: "packages-2", Egress: egress.Agent, Rules: grantsOf(t, allow...)})
	run := func(line string) (string, int) {
		t.Helper()
		var out both
		code, err := b.Exec(t.Context(), box.ID, sandbox.Command{Shell: line, User: "root", Stdout: &out, Stderr: &out})
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return out.String(), code
	}
	put := func(dir string, what ...string) {
		t.Helper()
		archive := exec.Command("tar", append([]string{"-C", dir, "-chf", "-"}, what...)...)
		stdout, err := archive.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		archive.Stderr = &said
		if err := archive.Start(); err != nil {
			t.Fatal(err)
		}
		if code, err := b.Exec(t.Context(), box.ID, sandbox.Command{Shell: "mkdir -p /opt/tools; tar -xf - -C /opt/tools", User: "root", Stdin: stdout}); err != nil || code != 0 {
			t.Fatalf("put %v: %d %v", what, code, err)
		}
		// 1 says that something about a file changed while it was read, as the time of its last link: what came is tried below.
		if err := archive.Wait(); err != nil && archive.ProcessState.ExitCode() != 1 {
			t.Fatalf("%v: %s", err, said.String())
		}
	}
	if out, code := run("apt-get update && apt-get install -y --no-install-recommends hello && hello"); code != 0 || !strings.Contains(out, "Hello, world!") {
		t.Errorf("apt: exit code %d: %s", code, out)
	}
	if npm, err := filepath.EvalSymlinks(strings.TrimSpace(output("sh", "-c", "command -v npm"))); err != nil {
		t.Log("this machine has no npm")
	} else {
		node := strings.TrimSpace(output("node", "-p", "process.execPath"))
		put(filepath.Dir(node), filepath.Base(node))
		put(filepath.Dir(filepath.Dir(filepath.Dir(npm))), "npm")
		line := fmt.Sprintf("cd /tmp && export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt PATH=/opt/tools:$PATH && node /opt/tools/npm/bin/npm-cli.js install --no-audit --no-fund --registry %s is-odd && ls node_modules/is-odd/package.json", registry)
		if out, code := run(line); code != 0 {
			t.Errorf("npm: exit code %d: %s", code, out)
		}
	}
	root := strings.TrimSpace(output("go", "env", "GOROOT"))
	if _, err := os.Stat(filepath.Join(root, "bin/go")); err != nil {
		t.Fatal(err)
	}
	put(root, "bin/go", "VERSION", "go.env")
	line := fmt.Sprintf("mkdir /tmp/m && cd /tmp/m && export GOROOT=/opt/tools GOTOOLCHAIN=local GOPROXY=%s GOSUMDB=off GOFLAGS=-mod=mod && /opt/tools/bin/go mod init m && /opt/tools/bin/go mod download -x golang.org/x/mod@v0.20.0", proxy)
	if out, code := run(line); code != 0 {
		t.Errorf("go: exit code %d: %s", code, out)
	}
	out, _ := run("/usr/lib/apt/apt-helper download-file http://elsewhere.example.com/x /tmp/x")
	denied, err := b.Denials(t.Context(), box.ID, 0)
	if err != nil || len(denied) != 1 || denied[0].Domain != "elsewhere.example.com" || !strings.Contains(out, "403") {
		t.Errorf("anything else: %s\n%+v %v", out, denied, err)
	}
}
