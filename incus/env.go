package incus

import (
	"fmt"
	"maps"
	"strings"

	"pixels/sandbox"
)

// envKeys begin the keys of a sandbox's environment; the variable's name follows. It is given to each command inside, and
// must not be a setting of Incus: see hostEnvKeys.
const envKeys = "user.pixels.env."

// hostEnvKeys begin the keys that Incus itself takes for an environment. It hands them to liblxc (lxc.environment), which
// gives them to hooks and to the process that starts the instance, too, and these run as root on the host. Sandboxes that
// an older version made have such keys.
const hostEnvKeys = "environment."

// envOf returns the environment of a sandbox with these keys.
func envOf(config map[string]string) map[string]string {
	env := map[string]string{}
	for _, prefix := range []string{hostEnvKeys, envKeys} {
		for key, value := range config {
			if name, ok := strings.CutPrefix(key, prefix); ok && value != "" { // an empty key is none
				env[name] = value
			}
		}
	}
	return env
}

// actsOutside tells whether an instance has an environment that acts on the host.
func actsOutside(config map[string]string) bool {
	for key, value := range config {
		if strings.HasPrefix(key, hostEnvKeys) && value != "" {
			return true
		}
	}
	return false
}

// moveEnv turns the environment that acts on the host into one that is given to commands inside alone.
func moveEnv(config map[string]string) {
	if actsOutside(config) {
		env := envOf(config)
		maps.DeleteFunc(config, func(key, _ string) bool { return strings.HasPrefix(key, hostEnvKeys) })
		setEnv(config, env)
	}
}

// setEnv writes an environment to a sandbox's keys.
func setEnv(config, env map[string]string) {
	for name, value := range env {
		config[envKeys+name] = value
	}
}

// inheritEnv gives the keys of a copy the environment of its source with what own adds, and none that acts on the host.
func inheritEnv(config, source, own map[string]string) error {
	env := envOf(source)
	// What older versions took and this one doesn't is no reason not to copy the rest.
	maps.DeleteFunc(env, func(name, value string) bool { return sandbox.CheckEnv(map[string]string{name: value}) != nil })
	maps.Copy(env, own)
	if err := sandbox.CheckEnv(env); err != nil {
		return fmt.Errorf("with the source's environment: %w", err)
	}
	for key := range source {
		if strings.HasPrefix(key, hostEnvKeys) {
			config[key] = "" // an empty key drops it
		}
	}
	setEnv(config, env)
	return nil
}
