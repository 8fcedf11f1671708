package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixels/internal/server"
)

// withConfig gives a typist a configuration of their own, and a place for records of their own.
func (p *typist) withConfig(text string) (config, state string) {
	p.t.Helper()
	config, state = p.t.TempDir(), p.t.TempDir()
	if err := os.MkdirAll(filepath.Join(config, "pixels"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	config = filepath.Join(config, "pixels", "config.toml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.env = []string{"XDG_CONFIG_HOME=" + filepath.Dir(filepath.Dir(config)), "XDG_STATE_HOME=" + state}
	return config, state
}

// A user of the first release keeps their file: it works as it is, and each thing that means nothing here is said once.
func TestAFileOfTheFirstReleaseWorks(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "first")
	b, err := os.ReadFile("../../internal/config/testdata/first.toml")
	if err != nil {
		t.Fatal(err)
	}
	// The bridge is this machine's.
	p.withConfig(strings.Replace(string(b), `network = "incusbr0"`, `network = "pixels"`, 1))
	out, errs, code := p.types("create", "box")
	if code != 0 || !strings.Contains(out, "Created box") {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	for _, says := range []string{"ssh.key means nothing here", "mcp.bases means nothing here", "the image ubuntu/24.04 of the configuration is not here", "pixels/base is taken instead"} {
		if !strings.Contains(errs, says) {
			t.Errorf("it does not say %q:\n%s", says, errs)
		}
	}
	if strings.Contains(errs, "1-secret") {
		t.Errorf("it says a secret: %s", errs)
	}
	if _, errs, _ := p.types("create", "second"); errs != "" {
		t.Errorf("it says the same again: %s", errs)
	}
	if out := p.does("network", "show", "box"); !strings.Contains(out, "allowlist") || !strings.Contains(out, "api.example.com") || !strings.Contains(out, "*.example.org") {
		t.Errorf("it may reach %s", out)
	}
	if out := p.does("exec", "box", "echo $PLAIN; nproc; grep -c . /proc/self/mounts >/dev/null; echo $((($(sed -n 's/MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo)+1023)/1024))"); !strings.HasPrefix(out, "v\n3\n") && !strings.HasPrefix(out, "v\n2\n") {
		t.Errorf("in it there is %s", out)
	}
	if out := p.does("config"); !strings.Contains(out, "mcp.idle_stop_after") || !strings.Contains(out, "ssh.key means nothing here") {
		t.Errorf("config shows %s", out)
	}
}

// Values that are forwarded, or for a session only, are in each command and nowhere else.
func TestSecretsAreKeptNowhere(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "secrets")
	forwarded, only := "f0rwarded-"+strings.Repeat("x", 8)+fmt.Sprint(os.Getpid()), "s3ssion-"+strings.Repeat("y", 8)+fmt.Sprint(os.Getpid())
	_, state := p.withConfig(fmt.Sprintf("[env]\nKEPT = \"k\"\nFORWARDED = { forward = true }\nONLY = { value = %q, session_only = true }\n", only))
	p.env = append(p.env, "FORWARDED="+forwarded)
	p.does("create", "box", "--egress", "none")
	want := "k " + forwarded + " " + only + "\n"
	const show = `echo "$KEPT $FORWARDED $ONLY"`
	if out := p.does("exec", "box", show); out != want {
		t.Errorf("in a command there is %q", out)
	}
	p.in = "x"
	if out := p.does("exec", "box", "cat; "+show); out != "x"+want {
		t.Errorf("in a command with an input there is %q", out)
	}
	if out := p.does("exec", "-e", "ONLY=mine", "box", show); !strings.HasSuffix(out, "mine\n") {
		t.Errorf("what is given does not come first: %q", out)
	}
	run := strings.TrimSpace(p.does("exec", "-d", "box", "sleep 2; "+show))
	if out := p.does("logs", "-f", run); out != want {
		t.Errorf("in the background there is %q", out)
	}
	w := newTerminal(p, 120, 24)
	w.types("pixels console box")
	w.ends("~$")
	w.types("clear; " + show)
	w.shows(strings.TrimSpace(want))
	w.presses("C-\\")
	w.shows("left the session")
	c, err := server.Start(t.Context(), "env", append(append([]string{}, p.env...), p.program, "serve", "--owner", p.owner)...)
	if err != nil {
		t.Fatal(err)
	}
	var ran struct{ Stdout string }
	if err := c.Call(t.Context(), "exec", map[string]any{"name": "box", "command": show}, &ran); err != nil || ran.Stdout != want {
		t.Errorf("an agent's command has %q, %v", ran.Stdout, err)
	}

	// While a command runs that has them.
	behind := p.command(t.Context(), "exec", "box", "sleep 30")
	var errs bytes.Buffer
	behind.Stderr = &errs
	if err := behind.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = behind.Process.Signal(os.Interrupt); _ = behind.Wait() }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the command does not run: ", errs.String())
		}
		ps, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		running := false
		for _, path := range ps {
			line, _ := os.ReadFile(path) // it may have ended
			if bytes.Contains(line, []byte(forwarded)) || bytes.Contains(line, []byte(only)) {
				t.Errorf("the list of processes shows it: %.300q", line)
			}
			running = running || bytes.Contains(line, []byte("sleep\x0030"))
		}
		if running {
			break
		}
	}
	keys, err := exec.Command("incus", "query", "/1.0/instances?recursion=2&all-projects=true").Output()
	if err != nil {
		t.Fatal(err)
	}
	operations, err := exec.Command("incus", "query", "/1.0/operations?recursion=1&all-projects=true").Output()
	if err != nil {
		t.Fatal(err)
	}
	record := p.does("audit", "--json")
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for where, text := range map[string][]byte{"the instances' keys": keys, "Incus's operations": operations, "the record": []byte(record)} {
		if bytes.Contains(text, []byte(forwarded)) || bytes.Contains(text, []byte(only)) {
			t.Errorf("it is in %s", where)
		}
	}
	if !strings.Contains(record, "echo") {
		t.Errorf("the commands are not on record: %.300s", record)
	}
	for _, dir := range []string{state, "/var/log/incus", "/var/lib/incus/database"} {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // what is not there has nothing
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			if b, err := os.ReadFile(path); err == nil && (bytes.Contains(b, []byte(forwarded)) || bytes.Contains(b, []byte(only))) {
				t.Errorf("it is in %s", path)
			}
			return nil
		})
	}
	if out := p.does("exec", "-u", "root", "box", "ls -A /run/pixels/env; grep -rl 's3ssion-' /etc /var/lib/pixels /home /tmp 2>/dev/null | grep -v -e tmux -e stdout || true"); out != "" {
		t.Errorf("in the sandbox it is kept in %s", out)
	}
}

func TestTheConfigurationIsShownAndEdited(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "config")
	config, _ := p.withConfig("[defaults]\ncpu = 3\n")
	if out := p.does("config", "path"); out != config+"\n" {
		t.Errorf("its path is %q", out)
	}
	p.env = append(p.env, "PIXELS_DEFAULTS_MEMORY=1GiB")
	var all []shownSetting
	if err := json.Unmarshal([]byte(p.does("config", "--json", "--defaults-disk", "11GiB")), &all); err != nil {
		t.Fatal(err)
	}
	from := map[string]string{}
	for _, s := range all {
		from[s.Key] = s.Value + " " + s.From
	}
	for key, want := range map[string]string{"defaults.cpu": "3 file", "defaults.memory": "1GiB PIXELS_DEFAULTS_MEMORY", "defaults.disk": "11GiB --defaults-disk", "defaults.egress": "agent default", "defaults.idle": "1h default"} {
		if from[key] != want {
			t.Errorf("%s is %q, want %q", key, from[key], want)
		}
	}
	edit := func(script string) {
		p.env = append(p.env, "EDITOR=sh -c '"+script+"'", "VISUAL=")
	}
	edit(`echo "cpu = 4" >"$0.x"; printf "[defaults]\ncpu = 4\n" >"$0"`)
	p.does("config", "edit")
	edit(`printf "[defaults]\n\ncpus = 4\n" >"$0"`)
	p.fails(1, "config.toml:3: unknown key defaults.cpus, did you mean defaults.cpu?; what was there stays", "config", "edit")
	edit("exit 3")
	p.fails(1, "EDITOR", "config", "edit")
	if b, err := os.ReadFile(config); string(b) != "[defaults]\ncpu = 4\n" {
		t.Errorf("the file has %q, %v", b, err)
	}
	if err := os.WriteFile(config, []byte("broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.fails(1, "config.toml:1", "list")
	edit(`printf "[defaults]\ncpu = 2\n" >"$0"`)
	p.does("config", "edit") // mends it
	if left, _ := filepath.Glob(config + ".edit*"); len(left) > 1 {
		t.Errorf("left over are %v", left)
	}
	if out := p.does("config"); !strings.Contains(out, "defaults.cpu") {
		t.Errorf("it shows %s", out)
	}
}
