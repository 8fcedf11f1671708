package config

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"pixels/internal/units"
)

// A file of the first release, and its variables, are read as they are: what has another name here is taken over, and of what means
// nothing here a note says what took its place.

// First are the keys that only the first release has. Most of their values matter to nobody.
type First struct {
	SSH struct {
		User, Key      any
		StrictHostKeys any `toml:"strict_host_keys"`
	} `toml:"ssh"`
	Checkpoint struct {
		DatasetPrefix any `toml:"dataset_prefix"`
	} `toml:"checkpoint"`
	Provision struct{ Enabled, Devtools any } `toml:"provision"`
	TrueNAS   struct {
		Host, Port, Username any
		APIKey               any `toml:"api_key"`
		Insecure             any `toml:"insecure_skip_verify"`
	} `toml:"truenas"`
	Network struct {
		Egress string
		Allow  []string
	} `toml:"network"`
	MCP struct {
		Prefix     any
		BasePrefix any    `toml:"base_prefix"`
		Image      string `toml:"default_image"`
		Idle       string `toml:"idle_stop_after"`
		Destroy    string `toml:"hard_destroy_after"`
		Reap       any    `toml:"reap_interval"`
		ExecMax    any    `toml:"exec_timeout_max"`
		Listen     any    `toml:"listen_addr"`
		Endpoint   any    `toml:"endpoint_path"`
		State      any    `toml:"state_file"`
		PID        any    `toml:"pid_file"`
		Bases      map[string]any
	} `toml:"mcp"`
}

// FirstDefaults are the keys of [defaults] that only the first release has.
type FirstDefaults struct {
	Pool, Parent, DNS any
	NICType           any `toml:"nic_type"`
}

// firstKey is a key of the first release: what it is here, or what took its place.
type firstKey struct {
	key  string // of the first release
	ours string // the setting that has its value; empty where there is none
	note string
}

const inImage = "a sandbox is as its image is: install what it needs into one, and make others of its checkpoint"

var firstKeys = []firstKey{
	{key: "network.egress", ours: "defaults.egress"},
	{key: "mcp.default_image", ours: "defaults.image"},
	{key: "mcp.idle_stop_after", ours: "defaults.idle"},
	{key: "mcp.hard_destroy_after", ours: "defaults.lease"},
	{key: "ssh.user", note: "nothing goes by SSH: exec and console take -u"},
	{key: "ssh.key", note: "nothing goes by SSH: exec and console need no key"},
	{key: "ssh.strict_host_keys", note: "nothing goes by SSH"},
	{key: "checkpoint.dataset_prefix", note: "it is for TrueNAS, which this version does not know"},
	{key: "provision.enabled", note: inImage},
	{key: "provision.devtools", note: inImage},
	{key: "truenas.host", note: "this version does not know TrueNAS"},
	{key: "truenas.port", note: "this version does not know TrueNAS"},
	{key: "truenas.username", note: "this version does not know TrueNAS"},
	{key: "truenas.api_key", note: "this version does not know TrueNAS"},
	{key: "truenas.insecure_skip_verify", note: "this version does not know TrueNAS"},
	{key: "defaults.pool", note: "it was never used with Incus: incus.pool names the pool"},
	{key: "defaults.nic_type", note: "each sandbox has a wire of its own to the gateway"},
	{key: "defaults.parent", note: "each sandbox has a wire of its own to the gateway, which sits on defaults.network"},
	{key: "defaults.dns", note: "the gateway answers the sandboxes' DNS"},
	{key: "mcp.prefix", note: "sandboxes have the names that they are given, and owners of their own"},
	{key: "mcp.base_prefix", note: "a base is a sandbox with a checkpoint"},
	{key: "mcp.reap_interval", note: "leases are looked after all the time"},
	{key: "mcp.exec_timeout_max", note: "quota.max_exec of the policy bounds commands"},
	{key: "mcp.listen_addr", note: "`mcp --listen-addr` says where clients are served by HTTP"},
	{key: "mcp.endpoint_path", note: "MCP is served at /mcp, and at /sse for old clients"},
	{key: "mcp.state_file", note: "all that is known of a sandbox is kept with it"},
	{key: "mcp.pid_file", note: "`setup --service` installs a service, which whoever starts it keeps"},
	{key: "mcp.bases", note: "make a sandbox of each by hand, and a checkpoint of that"},
}

// env is the variable of a key of the first release.
func (k firstKey) env() string {
	name := "PIXELS_" + strings.ToUpper(strings.ReplaceAll(k.key, ".", "_"))
	if k.key == "truenas.insecure_skip_verify" {
		return "PIXELS_TRUENAS_INSECURE"
	}
	return strings.Replace(name, "PIXELS_DEFAULTS_", "PIXELS_DEFAULT_", 1)
}

// fromFirst takes over what a file has of the first release. has are all keys of the file.
func (c *Config) fromFirst(has []string) error {
	for _, k := range firstKeys {
		if !slices.ContainsFunc(has, func(key string) bool { return key == k.key || strings.HasPrefix(key, k.key+".") }) {
			continue
		}
		if k.ours == "" {
			c.Notes = append(c.Notes, fmt.Sprintf("%s means nothing here: %s", k.key, k.note))
			continue
		}
		if slices.Contains(has, k.ours) {
			continue // ours says it, too
		}
		value := map[string]string{"network.egress": c.Network.Egress, "mcp.default_image": c.MCP.Image, "mcp.idle_stop_after": c.MCP.Idle, "mcp.hard_destroy_after": c.MCP.Destroy}[k.key]
		if value == "" {
			continue
		}
		if err := c.take(k, value, k.key); err != nil {
			return err
		}
	}
	c.Defaults.Allow = append(c.Defaults.Allow, c.Network.Allow...)
	return nil
}

// take sets one of our settings to the value of a key of the first release. where says where that stood.
func (c *Config) take(k firstKey, value, where string) error {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.Key == k.ours })
	if k.ours == "defaults.lease" && strings.Trim(value, "0smh") == "" { // it had no end
		value = units.Duration(time.Duration(c.Defaults.MaxLease))
	}
	if err := settings[i].set(c, value); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	c.from[k.ours] = where
	return nil
}

// firstVariable takes over a variable of the first release; known tells whether it is one.
func (c *Config) firstVariable(name, value string) (known bool, err error) {
	for _, key := range []string{"image", "cpu", "memory"} {
		if name == "PIXELS_DEFAULT_"+strings.ToUpper(key) {
			return true, c.take(firstKey{ours: "defaults." + key}, value, name)
		}
	}
	for _, k := range firstKeys {
		if k.env() != name {
			continue
		}
		if k.ours == "" {
			c.Notes = append(c.Notes, fmt.Sprintf("the variable %s means nothing here: %s", name, k.note))
			return true, nil
		}
		return true, c.take(k, value, name)
	}
	return false, nil
}

// normal gives values of the first release the meaning that they had there: a bare number of memory is in MiB. Nothing runs in less
// than one.
func (c *Config) normal() {
	if m := &c.Defaults.Memory; *m > 0 && *m < 1<<20 {
		*m <<= 20
	}
}

// variable is a variable of sandboxes, in one of the four forms of [env].
type variable struct {
	value       string
	forward     bool // the value is the caller's own
	sessionOnly bool // it is given with each call, and kept nowhere
}

// environment reads [env]: NAME = "value", or a table with value, forward and session_only. $VAR in a value is the caller's.
func (c *Config) environment(lookup func(string) (string, bool)) error {
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		v, err := readVariable(c.Env[name])
		if err != nil {
			return fmt.Errorf("env.%s: %w", name, err)
		}
		expanded := os.Expand(v.value, func(name string) string { value, _ := lookup(name); return value })
		switch own, there := lookup(name); {
		case v.forward && !there:
		case v.forward:
			c.SessionEnv[name] = own
		case v.sessionOnly:
			c.SessionEnv[name] = expanded
		default:
			if _, ours := c.Defaults.Env[name]; !ours {
				c.Defaults.Env[name] = expanded
			}
		}
	}
	return nil
}

func readVariable(value any) (v variable, err error) {
	table, ok := value.(map[string]any)
	if !ok {
		if v.value, ok = value.(string); !ok {
			return v, fmt.Errorf("%v is neither a text nor a table with value, forward or session_only", value)
		}
		return v, nil
	}
	for key, value := range table {
		switch key {
		case "value":
			v.value, ok = value.(string)
		case "forward":
			v.forward, ok = value.(bool)
		case "session_only":
			v.sessionOnly, ok = value.(bool)
		default:
			return v, fmt.Errorf("it has the unknown key %s: there are value, forward and session_only", key)
		}
		if !ok {
			return v, fmt.Errorf("%s can't be %v", key, value)
		}
	}
	if _, valued := table["value"]; valued == v.forward {
		return v, fmt.Errorf("give either a value, or forward = true, which takes the caller's")
	}
	return v, nil
}
