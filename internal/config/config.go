// Package config reads what a human settled about this installation: config.toml, PIXELS_* variables over it, and flags
// over those. It checks each value where it stands, and knows nothing of what is done with them.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"pixels/egress"
	"pixels/internal/nearest"
	"pixels/internal/place"
	"pixels/internal/strict"
	"pixels/internal/units"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// Config is the configuration in force.
type Config struct {
	Backend  string         `toml:"backend"` // incus
	Incus    Incus          `toml:"incus"`
	Defaults Defaults       `toml:"defaults"`
	Presets  egress.Presets `toml:"presets"` // added to those of the program
	Env      map[string]any `toml:"env"`     // variables of sandboxes, in the four forms of the first release
	First

	// SessionEnv are the variables that are given with each call, and kept nowhere.
	SessionEnv map[string]string `toml:"-"`
	// Notes say what means nothing here, and what took its place.
	Notes []string `toml:"-"`

	presets egress.Presets    // all of them
	allow   []egress.Rule     // of Defaults.Allow
	from    map[string]string // where a setting came from, by its key
}

// Incus says which Incus to use and how set-up prepares it.
type Incus struct {
	Socket     string `toml:"socket"`
	Remote     string `toml:"remote"`
	ClientCert string `toml:"client_cert"`
	ClientKey  string `toml:"client_key"`
	ServerCert string `toml:"server_cert"`
	Project    string `toml:"project"`
	Pool       string `toml:"pool"`
	PoolSize   Size   `toml:"pool_size"`
	PoolDriver string `toml:"pool_driver"`
}

// Defaults are what a sandbox gets when its creator does not say.
type Defaults struct {
	Image     string            `toml:"image"`
	CPU       Cores             `toml:"cpu"`
	Memory    Size              `toml:"memory"`     // of RAM
	Disk      Size              `toml:"disk"`       // of the root file system
	Processes int               `toml:"processes"`  // tasks
	Egress    string            `toml:"egress"`     // a mode: none, agent, allowlist or unrestricted
	Network   string            `toml:"network"`    // managed bridge that the gateway of sandboxes sits on
	Lease     Duration          `toml:"lease"`      // how long it lives
	MaxLease  Duration          `toml:"max_lease"`  // the longest that one may be given
	StrictECH bool              `toml:"strict_ech"` // refuse TLS with an Encrypted Client Hello
	Nesting   bool              `toml:"nesting"`    // containers inside, which opens more of the kernel
	Allow     []string          `toml:"allow"`      // domains that a new one may reach besides
	Idle      Idle              `toml:"idle"`       // without use for so long it is stopped; 0 is never
	LeaseEnd  string            `toml:"lease_end"`  // what the end of the lease does: destroy or stop
	Env       map[string]string `toml:"env"`
	FirstDefaults
}

// Cores is a number of cores, written as 2 or "2".
type Cores int

// UnmarshalText reads a number.
func (c *Cores) UnmarshalText(b []byte) error {
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("%q is no whole number", b)
	}
	*c = Cores(n)
	return nil
}

// Idle is a length of time, or 0, which is never.
type Idle time.Duration

// UnmarshalText reads it.
func (d *Idle) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	if text == "off" || text != "" && strings.Trim(text, "0smhd") == "" {
		*d = 0
		return nil
	}
	n, err := units.ParseDuration(text)
	*d = Idle(n)
	return err
}

// Size is a number of bytes, written as 2GiB.
type Size int64

// UnmarshalText reads a size as people write it.
func (s *Size) UnmarshalText(b []byte) error {
	n, err := units.ParseSize(string(b))
	*s = Size(n)
	return err
}

// Duration is a length of time, written as 2h or 7d.
type Duration time.Duration

// UnmarshalText reads a duration as people write it.
func (d *Duration) UnmarshalText(b []byte) error {
	n, err := units.ParseDuration(string(b))
	*d = Duration(n)
	return err
}

// Default returns the configuration of a machine where nothing was settled.
func Default() Config {
	return Config{
		Backend: "incus",
		Incus:   Incus{Project: "default", Pool: "pixels"},
		Defaults: Defaults{
			Image: shippedImage, CPU: 2, Memory: 2 << 30, Disk: 10 << 30, Processes: 4096,
			Egress: string(egress.Agent), Network: "pixels",
			Lease: Duration(manager.DefaultLease), MaxLease: Duration(manager.DefaultMaxLease), Idle: Idle(time.Hour), LeaseEnd: "destroy",
		},
	}
}

// Path returns where config.toml is looked for when no flag names another.
func Path() (string, error) {
	dir, err := place.Config()
	return filepath.Join(dir, "config.toml"), err
}

// Load reads the file at path over the defaults, then PIXELS_* variables from environ (as os.Environ gives them), then
// flags, a map of settings' keys to values. A missing file is an error only when required is set. Errors name the file
// and line, the variable or the flag at fault.
func Load(path string, required bool, environ []string, flags map[string]string) (Config, error) {
	c := Default()
	c.Defaults.Env, c.SessionEnv, c.from = map[string]string{}, map[string]string{}, map[string]string{}
	lookup := func(name string) (string, bool) {
		for _, kv := range slices.Backward(environ) {
			if key, value, _ := strings.Cut(kv, "="); key == name {
				return value, true
			}
		}
		return "", false
	}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !required:
	case err != nil:
		return c, fmt.Errorf("read the configuration: %w", err)
	default:
		var wrong *strict.Error
		if err := strict.Decode(string(b), &c, keys()); errors.As(err, &wrong) {
			return c, fmt.Errorf("%s:%d: %w", path, wrong.Line, wrong.Err)
		}
		var all map[string]any
		if err := toml.Unmarshal(b, &all); err != nil {
			return c, fmt.Errorf("%s: %w", path, err)
		}
		has := flat("", all)
		for _, key := range has {
			c.from[key] = "file"
		}
		if err := c.fromFirst(has); err != nil {
			return c, fmt.Errorf("%s: %w", path, err)
		}
		if err := c.environment(lookup); err != nil {
			return c, fmt.Errorf("%s: %w", path, err)
		}
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "PIXELS_") || strings.HasPrefix(name, "PIXELS_TEST_") || slices.Contains(notSettings, name) {
			continue
		}
		i := slices.IndexFunc(settings, func(s setting) bool { return s.Env() == name })
		if i < 0 {
			if known, err := c.firstVariable(name, value); err != nil {
				return c, fmt.Errorf("the variable %w", err)
			} else if known {
				continue
			}
			return c, fmt.Errorf("the variable %s is unknown%s", name, nearest.Hint(name, variables()))
		}
		if err := settings[i].set(&c, value); err != nil {
			return c, fmt.Errorf("the variable %s: %w", name, err)
		}
		c.from[settings[i].Key] = name
	}
	for key, value := range flags {
		i := slices.IndexFunc(settings, func(s setting) bool { return s.Key == key })
		if i < 0 {
			return c, fmt.Errorf("there is no setting %s", key)
		}
		if err := settings[i].set(&c, value); err != nil {
			return c, fmt.Errorf("--%s: %w", settings[i].Flag(), err)
		}
		c.from[key] = "--" + settings[i].Flag()
	}
	c.normal()
	if err := c.check(); err != nil {
		return c, err
	}
	for _, text := range c.Defaults.Allow {
		rule, err := egress.ParseDomainRule(text)
		if err != nil {
			return c, fmt.Errorf("defaults.allow: %w", err)
		}
		c.allow = append(c.allow, rule)
	}
	if c.presets, err = egress.Shipped(c.Presets); err != nil {
		return c, fmt.Errorf("presets: %w", err)
	}
	return c, nil
}

// flat returns the keys of a file with their tables.
func flat(prefix string, table map[string]any) (keys []string) {
	for key, value := range table {
		if below, ok := value.(map[string]any); ok {
			keys = append(keys, flat(prefix+key+".", below)...)
		} else {
			keys = append(keys, prefix+key)
		}
	}
	return keys
}

// check looks at what no single value shows.
func (c Config) check() error {
	d := c.Defaults
	switch {
	case c.Backend != "incus":
		return fmt.Errorf("backend %q is unknown: the backend is incus", c.Backend)
	case d.CPU < 1:
		return fmt.Errorf("defaults.cpu is %d: give a number of cores, 1 or more", d.CPU)
	case d.Processes < 64:
		return fmt.Errorf("defaults.processes is %d: a booted system alone needs 64", d.Processes)
	case d.Memory < 128<<20:
		return fmt.Errorf("defaults.memory is %s: a booted system alone needs 128MiB", units.Size(int64(d.Memory)))
	case d.Disk < 1<<30:
		return fmt.Errorf("defaults.disk is %s: the base image alone needs 1GiB", units.Size(int64(d.Disk)))
	case d.Lease < Duration(sandbox.MinTTL) || d.Lease > d.MaxLease:
		return fmt.Errorf("defaults.lease is %s: give %s up to defaults.max_lease (%s)", units.Duration(time.Duration(d.Lease)), sandbox.MinTTL, units.Duration(time.Duration(d.MaxLease)))
	case egress.Mode(d.Egress).Check() != nil:
		return fmt.Errorf("defaults.egress: %w", egress.Mode(d.Egress).Check())
	case d.LeaseEnd != "destroy" && d.LeaseEnd != "stop":
		return fmt.Errorf("defaults.lease_end is %q: give destroy or stop", d.LeaseEnd)
	case d.Idle != 0 && d.Idle < Idle(time.Minute):
		return fmt.Errorf("defaults.idle is %s: give 1m or more, or 0, which is never", units.Duration(time.Duration(d.Idle)))
	case sandbox.CheckEnv(c.SessionEnv) != nil:
		return fmt.Errorf("env: %w", sandbox.CheckEnv(c.SessionEnv))
	case sandbox.CheckEnv(d.Env) != nil:
		return fmt.Errorf("defaults.env: %w", sandbox.CheckEnv(d.Env))
	}
	return nil
}

// shippedImage is the image that set-up makes unless the configuration says otherwise.
const shippedImage = "pixels/base"

// ownImage is the name of the image that set-up makes. An image of a public server, as files of the first release name one, is none of
// ours.
func (c Config) ownImage() string {
	if strings.HasPrefix(c.Defaults.Image, "pixels/") {
		return c.Defaults.Image
	}
	return shippedImage
}

// SandboxDefaults returns what a sandbox gets when its creator does not say.
func (c Config) SandboxDefaults() manager.Defaults {
	d := c.Defaults
	return manager.Defaults{
		Sweep: sandbox.SweepRules{Idle: time.Duration(d.Idle), StopAtEnd: d.LeaseEnd == "stop"},
		Lease: time.Duration(d.Lease), MaxLease: time.Duration(d.MaxLease),
		Image: d.Image, SpareImage: c.ownImage(), Allow: c.allow, SessionEnv: c.SessionEnv, Egress: egress.Mode(d.Egress), Nesting: d.Nesting, Presets: c.presets, Env: d.Env,
		Limits: sandbox.Limits{CPU: int(d.CPU), Memory: int64(d.Memory), Disk: int64(d.Disk), Processes: d.Processes},
	}
}
