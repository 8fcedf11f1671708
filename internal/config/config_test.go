package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileThenVariablesThenFlags(t *testing.T) {
	path := write(t, "[incus]\nproject = \"file\"\npool = \"file\"\n\n[defaults]\nmemory = \"1GiB\"\ncpu = 3\n\n[defaults.env]\nTZ = \"UTC\"\n")
	c, err := Load(path, true, []string{"PIXELS_INCUS_POOL=variable", "PIXELS_DEFAULTS_CPU=4", "HOME=/"}, map[string]string{"defaults.cpu": "5"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Incus.Project != "file" || c.Incus.Pool != "variable" || c.Defaults.CPU != 5 {
		t.Errorf("the order is not kept: %+v", c)
	}
	if c.Defaults.Memory != 1<<30 || c.Defaults.Env["TZ"] != "UTC" {
		t.Errorf("values are not read: %+v", c.Defaults)
	}
	if c.Defaults.Disk != Default().Defaults.Disk {
		t.Error("what the file leaves out keeps its default")
	}
}

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	for name, c := range map[string]struct {
		file     string
		environ  []string
		flags    map[string]string
		contains []string
	}{
		"unknown key":      {file: "[incus]\n\nsokcet = \"/x\"\n", contains: []string{"config.toml:3:", "incus.sokcet", "did you mean incus.socket"}},
		"unknown table":    {file: "[default]\ncpu = 1\n", contains: []string{"config.toml:1:", "default"}},
		"wrong type":       {file: "[defaults]\ncpu = \"two\"\n", contains: []string{"config.toml:2:", "defaults.cpu"}},
		"bad size":         {file: "[defaults]\nmemory = \"much\"\n", contains: []string{"config.toml:2:", "512MiB"}},
		"broken TOML":      {file: "[defaults\n", contains: []string{"config.toml:1:"}},
		"unknown variable": {environ: []string{"PIXELS_INCUS_POOOL=x"}, contains: []string{"PIXELS_INCUS_POOOL", "did you mean PIXELS_INCUS_POOL"}},
		"bad variable":     {environ: []string{"PIXELS_DEFAULTS_CPU=x"}, contains: []string{"PIXELS_DEFAULTS_CPU", "whole number"}},
		"bad flag":         {flags: map[string]string{"defaults.disk": "much"}, contains: []string{"--defaults-disk", "2GiB"}},
		"variable of ours": {file: "[defaults.env]\nPIXELS_X = \"1\"\n", contains: []string{"defaults.env", "PIXELS_X"}},
		"unknown egress":   {file: "[defaults]\negress = \"open\"\n", contains: []string{"defaults.egress", "allowlist"}},
		"bad preset":       {file: "[[presets.agent]]\ndomains = [\"*.com\"]\nwhose = \"us\"\n", contains: []string{"preset agent", "*.com"}},
		"bad lease":        {file: "[defaults]\nlease = \"long\"\n", contains: []string{"config.toml:2:", "7d"}},
		"lease over most":  {file: "[defaults]\nlease = \"3d\"\nmax_lease = \"2d\"\n", contains: []string{"defaults.lease", "2d"}},
		"no cores":         {file: "[defaults]\ncpu = 0\n", contains: []string{"defaults.cpu"}},
		"unknown backend":  {file: "backend = \"docker\"\n", contains: []string{"docker", "incus"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, c.file), true, c.environ, c.flags)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range c.contains {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
		})
	}
}

func TestOnlyANamedFileMustExist(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.toml")
	if _, err := Load(missing, false, nil, nil); err != nil {
		t.Error(err)
	}
	if _, err := Load(missing, true, nil, nil); err == nil {
		t.Error("a file that was asked for and is not there is an error")
	}
}

func TestEverySettingCanBeSetAndShown(t *testing.T) {
	for _, s := range settings {
		c := Default()
		text := "7"
		switch s.field(&c).(type) {
		case *Idle:
			text = "3d"
		case *Size:
			text = "7GiB"
		case *Duration:
			text = "3d"
		case *bool:
			text = "true"
		}
		if err := s.set(&c, text); err != nil {
			t.Errorf("%s: %v", s.Key, err)
		}
		if got := c.Value(s.Key); got != text {
			t.Errorf("%s was set to %s and shows %s", s.Key, text, got)
		}
	}
}
