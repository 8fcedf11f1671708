package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"pixels/internal/units"
)

// setting is one value that file, environment and flags may give.
type setting struct {
	Key   string // as in config.toml, with its table
	Usage string
	field func(*Config) any
}

// settings is the one list from which variables, flags and the overview are made. A map (defaults.env) is for the file alone.
var settings = []setting{
	{"backend", "what runs sandboxes (incus)", func(c *Config) any { return &c.Backend }},
	{"incus.socket", "socket of the local Incus", func(c *Config) any { return &c.Incus.Socket }},
	{"incus.remote", "address of a remote Incus, https://HOST:PORT", func(c *Config) any { return &c.Incus.Remote }},
	{"incus.client_cert", "file with the client certificate for the remote Incus", func(c *Config) any { return &c.Incus.ClientCert }},
	{"incus.client_key", "file with the key of the client certificate", func(c *Config) any { return &c.Incus.ClientKey }},
	{"incus.server_cert", "file with the certificate that the remote Incus must show", func(c *Config) any { return &c.Incus.ServerCert }},
	{"incus.project", "Incus project of sandboxes", func(c *Config) any { return &c.Incus.Project }},
	{"incus.pool", "storage pool of sandboxes", func(c *Config) any { return &c.Incus.Pool }},
	{"incus.pool_size", "size of the pool that setup makes, as 20GiB", func(c *Config) any { return &c.Incus.PoolSize }},
	{"incus.pool_driver", "driver of the pool that setup makes: btrfs, zfs or dir", func(c *Config) any { return &c.Incus.PoolDriver }},
	{"defaults.image", "image of a new sandbox", func(c *Config) any { return &c.Defaults.Image }},
	{"defaults.cpu", "cores of a new sandbox", func(c *Config) any { return &c.Defaults.CPU }},
	{"defaults.memory", "memory of a new sandbox, as 2GiB", func(c *Config) any { return &c.Defaults.Memory }},
	{"defaults.disk", "disk of a new sandbox, as 10GiB", func(c *Config) any { return &c.Defaults.Disk }},
	{"defaults.processes", "most processes of a new sandbox", func(c *Config) any { return &c.Defaults.Processes }},
	{"defaults.egress", "egress mode of a new sandbox: none, agent, allowlist or unrestricted", func(c *Config) any { return &c.Defaults.Egress }},
	{"defaults.strict_ech", "refuse TLS that encrypts its server name (ECH), feigned or not: true or false; setup brings it to the gateway", func(c *Config) any { return &c.Defaults.StrictECH }},
	{"defaults.nesting", "let sandboxes run containers inside, which opens more of the kernel to them: true or false", func(c *Config) any { return &c.Defaults.Nesting }},
	{"defaults.idle", "how long a sandbox may be without use until it is stopped, as 1h; 0 is for ever", func(c *Config) any { return &c.Defaults.Idle }},
	{"defaults.lease_end", "what the end of a lease does: destroy, or stop, which leaves 7 days until it is destroyed", func(c *Config) any { return &c.Defaults.LeaseEnd }},
	{"defaults.lease", "how long a sandbox lives whose creator does not say, as 24h", func(c *Config) any { return &c.Defaults.Lease }},
	{"defaults.max_lease", "the longest lease of a sandbox, as 30d", func(c *Config) any { return &c.Defaults.MaxLease }},
	{"defaults.network", "managed bridge that the gateway of sandboxes sits on", func(c *Config) any { return &c.Defaults.Network }},
}

// notSettings are variables of ours that configure something else: the location of the file, the owner, the tests; and what a
// command in a sandbox has. Others of the tests begin with PIXELS_TEST_.
var notSettings = []string{"PIXELS_CONFIG", "PIXELS_OWNER", "PIXELS_SERVER", "PIXELS_SERVER_CERT", "PIXELS_TOKEN", "PIXELS_TOKEN_FILE", "PIXELS_UPDATE_GOLDEN", "PIXELS_BENCH", "PIXELS_GATEWAY", "PIXELS_SCREENSHOTS", "PIXELS_CALL"}

// Env is the setting's environment variable.
func (s setting) Env() string {
	return "PIXELS_" + strings.ToUpper(strings.ReplaceAll(s.Key, ".", "_"))
}

// Flag is the setting's flag, without dashes.
func (s setting) Flag() string { return strings.NewReplacer(".", "-", "_", "-").Replace(s.Key) }

func (s setting) set(c *Config, value string) error {
	switch field := s.field(c).(type) {
	case *string:
		*field = value
	case *bool:
		yes, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		*field = yes
	case *int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("%q is no whole number", value)
		}
		*field = n
	case *Cores:
		return field.UnmarshalText([]byte(value))
	case *Idle:
		return field.UnmarshalText([]byte(value))
	case *Size:
		return field.UnmarshalText([]byte(value))
	case *Duration:
		return field.UnmarshalText([]byte(value))
	}
	return nil
}

// Setting is a setting for those who offer or show it.
type Setting struct{ Key, Env, Flag, Usage string }

// Settings lists all that can be set, in the order of the file.
func Settings() []Setting {
	out := make([]Setting, len(settings))
	for i, s := range settings {
		out[i] = Setting{s.Key, s.Env(), s.Flag(), s.Usage}
	}
	return out
}

// Value returns a setting's value in c, as one would write it.
func (c Config) Value(key string) string {
	for _, s := range settings {
		if s.Key != key {
			continue
		}
		switch field := s.field(&c).(type) {
		case *Size:
			if *field == 0 {
				return ""
			}
			return units.Size(int64(*field))
		case *Cores:
			return strconv.Itoa(int(*field))
		case *Idle:
			if *field == 0 {
				return "0"
			}
			return units.Duration(time.Duration(*field))
		case *Duration:
			return units.Duration(time.Duration(*field))
		case *bool:
			return strconv.FormatBool(*field)
		case *int:
			return strconv.Itoa(*field)
		case *string:
			return *field
		}
	}
	return ""
}

// From says where the value of a setting came from: file, the name of a variable or flag, or a key of the first release; empty where it
// is the default.
func (c Config) From(key string) string { return c.from[key] }

func keys() []string {
	out := []string{"defaults.env", "defaults.allow", "presets", "env", "network.allow"}
	for _, k := range firstKeys {
		out = append(out, k.key)
	}
	for _, s := range settings {
		out = append(out, s.Key)
	}
	return out
}

func variables() []string {
	var out []string
	for _, s := range settings {
		out = append(out, s.Env())
	}
	return out
}
