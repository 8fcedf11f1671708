package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What a shell offers is what there is, and asking for it changes nothing.
func TestCompletionKnowsWhatThereIs(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "complete")
	p.env = []string{"XDG_STATE_HOME=" + t.TempDir(), "PIXELS_OWNER=" + p.owner}
	p.does("create", "base", "other", "--egress", "allowlist", "--allow", "example.com")
	p.does("checkpoint", "create", "base", "--label", "ready")
	p.does("stop", "other")
	records := p.does("audit", "--json")
	for want, args := range map[string][]string{
		"base other":                       {"destroy", ""},
		"other":                            {"destroy", "base", ""},
		"base":                             {"exec", "ba"},
		"base ":                            {"stop", ""},
		"other ":                           {"start", ""},
		"ready":                            {"checkpoint", "restore", "base", ""},
		"base:ready":                       {"clone", ""},
		"base:ready base":                  {"create", "x", "--from", "ba"},
		"none agent allowlist":             {"network", "set", "base", ""},
		"example.com":                      {"network", "deny", "base", ""},
		"none agent allowlist ":            {"create", "x", "--egress", ""},
		"":                                 {"create", ""},
		"create restore list delete":       {"cp", ""},
		"list show approve deny revoke":    {"requests", ""},
		"bash zsh fish powershell":         {"completion", ""},
		"setup serve status sessions stop": {"s"},
	} {
		// What isn't found within its time is not offered, which may be so on a busy machine.
		out, missing := "", want
		for try := 0; try < 10 && missing != ""; try++ {
			begun := time.Now()
			out = p.does(append([]string{"__complete"}, args...)...)
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("%v took %s", args, took)
			}
			missing = ""
			for _, word := range strings.Fields(want) {
				if !slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool { return strings.Split(line, "\t")[0] == word }) {
					missing = word
				}
			}
		}
		if missing != "" {
			t.Errorf("%v offers %q, not %s", args, out, missing)
		}
		if want == "base " && strings.Contains(out, "other") || want == "other " && strings.Contains(out, "base") || want == "other" && strings.Contains(out, "base") {
			t.Errorf("%v offers %q", args, out)
		}
	}
	if now := p.does("audit", "--json"); len(now) > len(records)+2000 || strings.Count(now, "\n") > strings.Count(records, "\n")+3 {
		t.Errorf("offering words is on record: %d bytes, and %d before", len(now), len(records))
	}
	p.env = []string{"XDG_STATE_HOME=" + filepath.Join(t.TempDir(), "none"), "PIXELS_INCUS_SOCKET=/nowhere.sock"}
	if out := p.does("__complete", "destroy", ""); strings.Contains(out, "base") {
		t.Errorf("without Incus it offers %q", out)
	}
	if _, err := os.Stat(filepath.Dir(p.env[0][len("XDG_STATE_HOME="):]) + "/none"); err == nil {
		t.Error("offering words made a place for records")
	}
	p.env = nil
}

// What make install puts in place works.
func TestWhatIsInstalled(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("../../bin/pixels-mcp"); err != nil {
		t.Fatal("make builds the program first: ", err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("make", "-C", "../..", "--no-print-directory", "install", "DESTDIR="+dir, "PREFIX=/usr").CombinedOutput(); err != nil {
		t.Fatalf("make install: %v: %s", err, out)
	}
	for path, has := range map[string]string{
		"share/man/man1/pixels.1": "Disposable Linux machines", "share/man/man1/pixels-checkpoint-create.1": "pixels checkpoint create base", "share/bash-completion/completions/pixels": "__start_pixels",
		"share/zsh/site-functions/_pixels": "#compdef pixels", "share/fish/vendor_completions.d/pixels.fish": "complete -c pixels",
	} {
		b, err := os.ReadFile(filepath.Join(dir, "usr", path))
		if err != nil || !strings.Contains(string(b), has) {
			t.Errorf("%s: %v, and %q is not in it", path, err, has)
		}
	}
	if out, err := exec.Command("bash", "-n", filepath.Join(dir, "usr/share/bash-completion/completions/pixels")).CombinedOutput(); err != nil {
		t.Errorf("bash: %v: %s", err, out)
	}
	out, err := exec.Command(filepath.Join(dir, "usr/bin/pixels"), "completion", "powershell").Output()
	if err != nil || !strings.Contains(string(out), "Register-ArgumentCompleter -CommandName 'pixels'") {
		t.Errorf("PowerShell: %v: %.200s", err, out)
	}
}
