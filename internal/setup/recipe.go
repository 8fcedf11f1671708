package setup

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"pixels/incus"
	"pixels/internal/guestbin"
)

//go:embed recipe/customize.sh
var customizeScript []byte

// Kinds of images. They differ in their first process.
const (
	kindBase    = incus.KindBase // our own: it starts a clone in a third of the time
	kindSystemd = "base-systemd" // systemd, for who needs services
)

// basePackages are what a sandbox has from the start.
var basePackages = []string{
	"iproute2", "ca-certificates", "git", "curl", "tmux", "sudo", "less", "procps", "openssh-client", "libnss-myhostname",
}

// systemdPackages come on top where systemd runs: with resolved, udev and networkd's own package eth0 comes up.
var systemdPackages = []string{"systemd", "systemd-sysv", "systemd-resolved", "dbus", "udev"}

const (
	sourcesPath = "/etc/apt/sources.list.d/pixels.sources"
	aptConfPath = "/etc/apt/apt.conf.d/90pixels-host"
	certsDir    = "/usr/local/share/ca-certificates"
)

// recipe is all that decides what is in an image. Two machines with the same one get the same image.
type recipe struct {
	kind                  string
	id, codename, release string
	packages              []string
	files                 map[string][]byte // carried into the image, by absolute path
	script                []byte

	// For the bootstrap only: with the passwords that must not get into the image.
	sources []source
	aptConf string
}

// templates are the files that Incus writes into each new instance and copy, by absolute path. A sandbox's name is not
// its instance's: the host name is the sandbox's, and libnss-myhostname resolves it, so that /etc/hosts stays the user's.
var templates = map[string]string{
	"/etc/hostname": "{{ config_get(\"user.pixels.name\", instance.name) }}\n",
}

// currentRecipe is the recipe for this machine's distribution, or an error that says what to do where images of it
// can't be built.
func currentRecipe(ctx context.Context, kind string) (recipe, error) {
	h, err := readHost()
	if err != nil {
		return recipe{}, err
	}
	if _, err := h.suite(); err != nil {
		return recipe{}, err
	}
	return newRecipe(ctx, h, kind)
}

// newRecipe writes the recipe for a host: its release, its mirror, the certificates that it was told to trust.
func newRecipe(ctx context.Context, h host, kind string) (recipe, error) {
	r := recipe{kind: kind, packages: basePackages, script: customizeScript, files: map[string][]byte{}}
	if kind == kindSystemd {
		r.packages = slices.Concat(basePackages, systemdPackages)
	}
	at, err := guestbin.Path()
	if err != nil {
		return r, err
	}
	if r.files[at], err = guestbin.Content(); err != nil {
		return r, err
	}
	r.id, r.codename, r.release = h.id, h.codename, h.version
	all, err := readSources("/")
	if err != nil {
		return r, err
	}
	if _, err := mainSource(all, h.codename); err != nil {
		return r, err
	}
	r.sources = forRelease(all, h.codename)
	r.files[sourcesPath] = []byte(deb822(withoutPasswords(r.sources)))
	if dump, err := exec.CommandContext(ctx, "apt-config", "dump").Output(); err == nil {
		r.aptConf = aptSettings(string(dump), false)
		if inside := aptSettings(string(dump), true); inside != "" {
			r.files[aptConfPath] = []byte(inside)
		}
	}
	certs, err := filepath.Glob(filepath.Join(certsDir, "*.crt"))
	if err != nil {
		return r, err
	}
	for _, path := range certs {
		if r.files[path], err = os.ReadFile(path); err != nil {
			return r, fmt.Errorf("read a certificate that this machine trusts: %w", err)
		}
	}
	return r, nil
}

// aptSettings picks from `apt-config dump` what the way to the mirror needs. inside leaves out what is of no use, or no
// business, in a sandbox: a proxy on the host's loopback, or one with a password.
func aptSettings(dump string, inside bool) string {
	var b strings.Builder
	for line := range strings.Lines(dump) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.Trim(value, `";`)
		if !ok || value == "" {
			continue
		}
		lower := strings.ToLower(key)
		proxy := strings.HasPrefix(lower, "acquire::http::proxy") || strings.HasPrefix(lower, "acquire::https::proxy")
		if !proxy && lower != "acquire::check-valid-until" && lower != "acquire::check-date" {
			continue
		}
		if proxy && inside && !usableInside(value) {
			continue
		}
		fmt.Fprintf(&b, "%s \"%s\";\n", key, value)
	}
	return b.String()
}

// usableInside tells whether a proxy means the same in a sandbox as on the host, and holds no secret.
func usableInside(proxy string) bool {
	u, err := url.Parse(proxy)
	if err != nil {
		return false
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.IsLoopback() {
		return false
	}
	return u.User == nil && u.Hostname() != "localhost"
}

// version names the recipe: an image that carries another one is out of date.
func (r recipe) version() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s\n%s\n%s\n%q\n", r.kind, runtime.GOARCH, r.id, r.codename, r.packages, r.script)
	for _, path := range slices.Sorted(maps.Keys(r.files)) {
		fmt.Fprintf(h, "%s\n%q\n", path, r.files[path])
	}
	properties := incus.ImageProperties(r.kind, "", r.id, r.codename)
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(h, "%s\n%s\n", key, properties[key])
	}
	for _, path := range slices.Sorted(maps.Keys(templates)) {
		fmt.Fprintf(h, "%s\n%q\n", path, templates[path])
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}
