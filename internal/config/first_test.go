package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A file of the first release with every key that it knew is read as it is.
func TestAFileOfTheFirstReleaseIsReadAsItIs(t *testing.T) {
	c, err := Load("testdata/first.toml", true, []string{"FORWARDED=of the caller", "HOST_SIDE=host"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := c.Defaults
	if d.Image != "ubuntu/24.04" || d.CPU != 3 || d.Memory != 4<<30 || d.Network != "incusbr0" || d.Egress != "allowlist" || !cmp.Equal(d.Allow, []string{"api.example.com", "*.example.org"}) ||
		time.Duration(d.Idle) != 90*time.Minute || time.Duration(d.Lease) != 48*time.Hour || c.Incus.Project != "default" || c.Incus.Socket != "/var/lib/incus/unix.socket" {
		t.Errorf("it is read as %+v, %+v", d, c.Incus)
	}
	if want := map[string]string{"PLAIN": "v", "TABLE": "in host"}; !cmp.Equal(d.Env, want) {
		t.Errorf("kept are %v, want %v", d.Env, want)
	}
	if want := map[string]string{"FORWARDED": "of the caller", "SESSION": "only host"}; !cmp.Equal(c.SessionEnv, want) {
		t.Errorf("given with each call are %v, want %v", c.SessionEnv, want)
	}
	notes := strings.Join(c.Notes, "\n")
	for _, k := range firstKeys {
		if told := strings.Contains(notes, k.key+" means nothing here: "); told != (k.ours == "") {
			t.Errorf("of %s a note says so: %v; it is %q here", k.key, told, k.ours)
		}
	}
	if strings.Contains(notes, "secret") {
		t.Errorf("a note has a value: %s", notes)
	}
	for key, want := range map[string]string{"defaults.egress": "network.egress", "defaults.idle": "mcp.idle_stop_after", "defaults.lease": "mcp.hard_destroy_after", "defaults.cpu": "file", "defaults.disk": ""} {
		if got := c.From(key); got != want {
			t.Errorf("%s is from %q, want %q", key, got, want)
		}
	}
}

func TestVariablesOfTheFirstRelease(t *testing.T) {
	c, err := Load("", false, []string{
		"PIXELS_DEFAULT_IMAGE=pixels/base", "PIXELS_DEFAULT_CPU=4", "PIXELS_DEFAULT_MEMORY=1024", "PIXELS_DEFAULT_POOL=tank", "PIXELS_NETWORK_EGRESS=none",
		"PIXELS_MCP_IDLE_STOP_AFTER=0", "PIXELS_MCP_HARD_DESTROY_AFTER=2h", "PIXELS_SSH_USER=me", "PIXELS_TRUENAS_INSECURE=true", "PIXELS_PROVISION_ENABLED=false",
		"PIXELS_MCP_LISTEN_ADDR=:1", "PIXELS_CHECKPOINT_DATASET_PREFIX=x", "PIXELS_BACKEND=incus", "PIXELS_INCUS_PROJECT=default",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Defaults; d.CPU != 4 || d.Memory != 1<<30 || d.Egress != "none" || d.Idle != 0 || time.Duration(d.Lease) != 2*time.Hour {
		t.Errorf("they are read as %+v", d)
	}
	if len(c.Notes) != 6 {
		t.Errorf("notes: %q", c.Notes)
	}
	for _, wrong := range []string{"PIXELS_DEFAULT_CPU=many", "PIXELS_NETWORK_EGRESS=all", "PIXELS_MCP_IDLE_STOP_AFTER=soon", "PIXELS_DEFAULT_CPUS=1"} {
		if _, err := Load("", false, []string{wrong}, nil); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}

func TestMistakesInKeysOfTheFirstRelease(t *testing.T) {
	for text, says := range map[string]string{
		"[ssh]\nusre = \"x\"\n":                               "config.toml:2: unknown key ssh.usre, did you mean ssh.user",
		"[mcp]\nidle_stop_after = \"soon\"\n":                 "mcp.idle_stop_after",
		"[network]\negress = \"all\"\n":                       "all",
		"[env]\nA = 1\n":                                      "env.A: 1 is neither a text nor a table",
		"[env]\nA = { forward = \"yes\" }\n":                  "env.A: forward can't be yes",
		"[env]\nA = { value = \"x\", forward = true }\n":      "env.A: give either",
		"[env]\nA = { session_only = true }\n":                "env.A: give either",
		"[env]\nA = { value = \"x\", sesion_only = true }\n":  "unknown key sesion_only",
		"[env]\n\"A B\" = \"x\"\n":                            "A B",
		"[env]\nPIXELS_X = { value=\"1\", session_only=true}": "PIXELS_X",
		"[defaults]\nidle = \"5s\"\n":                         "defaults.idle",
		"[defaults]\nlease_end = \"pause\"\n":                 "destroy or stop",
		"[defaults]\nallow = \"x\"\n":                         "defaults.allow",
	} {
		if _, err := Load(write(t, text), true, nil, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("of %q it says %v, want %q", text, err, says)
		}
	}
}
