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
	"strings"
	"time"

	"pixels/egress"
	"pixels/incus"
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

	presets egress.Presets // all of them
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
	CPU       int               `toml:"cpu"`        // cores
	Memory    Size              `toml:"memory"`     // of RAM
	Disk      Size              `toml:"disk"`       // of the root file system
	Processes int               `toml:"processes"`  // tasks
	Egress    string            `toml:"egress"`     // a mode: none, agent, allowlist or unrestricted
	Network   string            `toml:"network"`    // managed bridge that the gateway of sandboxes sits on
	Lease     Duration          `toml:"lease"`      // how long it lives
	MaxLease  Duration          `toml:"max_lease"`  // the longest that one may be given
	StrictECH bool              `toml:"strict_ech"` // refuse TLS with an Encrypted Client Hello
	Nesting   bool              `toml:"nesting"`    // containers inside, which opens more of the kernel
	Env       map[string]string `toml:"env"`
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
			Image: "pixels/base", CPU: 2, Memory: 2 << 30, Disk: 10 << 30, Processes: 4096,
			Egress: string(egress.Agent), Network: "pixels",
			Lease: Duration(manager.DefaultLease), MaxLease: Duration(manager.DefaultMaxLease),
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
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "PIXELS_") || strings.HasPrefix(name, "PIXELS_TEST_") || slices.Contains(notSettings, name) {
			continue
		}
		i := slices.IndexFunc(settings, func(s setting) bool { return s.Env() == name })
		if i < 0 {
			return c, fmt.Errorf("the variable %s is unknown%s", name, nearest.Hint(name, variables()))
		}
		if err := settings[i].set(&c, value); err != nil {
			return c, fmt.Errorf("the variable %s: %w", name, err)
		}
	}
	for key, value := range flags {
		i := slices.IndexFunc(settings, func(s setting) bool { return s.Key == key })
		if i < 0 {
			return c, fmt.Errorf("there is no setting %s", key)
		}
		if err := settings[i].set(&c, value); err != nil {
			return c, fmt.Errorf("--%s: %w", settings[i].Flag(), err)
		}
	}
	if err := c.check(); err != nil {
		return c, err
	}
	if c.presets, err = egress.Shipped(c.Presets); err != nil {
		return c, fmt.Errorf("presets: %w", err)
	}
	return c, nil
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
	case sandbox.CheckEnv(d.Env) != nil:
		return fmt.Errorf("defaults.env: %w", sandbox.CheckEnv(d.Env))
	}
	return nil
}

// IncusConfig returns what the Incus backend needs.
func (c Config) IncusConfig() incus.Config {
	i := c.Incus
	return incus.Config{
		Socket: i.Socket, Remote: i.Remote, ClientCert: i.ClientCert, ClientKey: i.ClientKey, ServerCert: i.ServerCert,
		Project: i.Project, Pool: i.Pool, Network: c.Defaults.Network, Image: c.Defaults.Image, Presets: c.presets, StrictECH: c.Defaults.StrictECH,
	}
}

// SandboxDefaults returns what a sandbox gets when its creator does not say.
func (c Config) SandboxDefaults() manager.Defaults {
	d := c.Defaults
	return manager.Defaults{
		Lease: time.Duration(d.Lease), MaxLease: time.Duration(d.MaxLease),
		Image: d.Image, Egress: egress.Mode(d.Egress), Nesting: d.Nesting, Presets: c.presets, Env: d.Env,
		Limits: sandbox.Limits{CPU: d.CPU, Memory: int64(d.Memory), Disk: int64(d.Disk), Processes: d.Processes},
	}
}
