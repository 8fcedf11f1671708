package setup

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"pixels/internal/program"
)

// host is the distribution that this machine runs.
type host struct {
	id, version, codename, pretty string
}

// readHost finds the distribution of this machine.
func readHost() (host, error) {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if b, err := os.ReadFile(path); err == nil {
			return parseOSRelease(string(b)), nil
		}
	}
	return host{}, fmt.Errorf("no /etc/os-release here, so the distribution is unknown: %s", byHand)
}

// parseOSRelease reads the file format of os-release(5).
func parseOSRelease(text string) host {
	fields := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		fields[key] = strings.Trim(value, `'"`)
	}
	h := host{id: fields["ID"], version: fields["VERSION_ID"], codename: fields["VERSION_CODENAME"], pretty: fields["PRETTY_NAME"]}
	if h.pretty == "" {
		h.pretty = strings.TrimSpace(h.id + " " + h.version)
	}
	return h
}

// byHand is what to do where set-up can't install.
var byHand = "install Incus 6.0 or newer (https://linuxcontainers.org/incus/docs/main/installing/), lxcfs, nftables, " +
	"dnsmasq, squashfs-tools, uidmap, iproute2, btrfs-progs and mmdebstrap or debootstrap by hand, start incusd, then run `" + program.Name + " setup` again"

// suite returns the apt suite that Incus is installed from: a backport where the release itself has none, "" where it does.
func (h host) suite() (string, error) {
	major, _, _ := strings.Cut(h.version, ".")
	n, _ := strconv.Atoi(major)
	switch {
	case h.id == "debian" && n == 12:
		return h.codename + "-backports", nil
	case h.id == "debian" && (n >= 13 || h.version == "" && h.codename != ""): // testing and unstable have no number
		return "", nil
	case h.id == "ubuntu" && n >= 24:
		return "", nil
	}
	return "", fmt.Errorf("set-up can install on Debian 12, Debian 13 and Ubuntu 24.04 or newer, and this is %s: %s", h.pretty, byHand)
}

// underSystemd tells whether systemd runs this machine, by the test that sd_booted(3) documents.
func underSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// find looks a program up, also where only root's PATH reaches.
func find(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode()&0o111 != 0 && !st.IsDir() {
			return path
		}
	}
	return ""
}

// findIncusd looks the daemon up where Debian, Ubuntu and the upstream packages put it.
func findIncusd() string {
	for _, path := range []string{"/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/opt/incus/bin/incusd"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return find("incusd")
}

// kernelHas tells whether the running kernel knows a file system, after trying to load its module.
func kernelHas(filesystem string) bool {
	if listed(filesystem) {
		return true
	}
	if modprobe := find("modprobe"); modprobe != "" && os.Geteuid() == 0 {
		_ = exec.Command(modprobe, filesystem).Run() // the list says whether it worked
	}
	return listed(filesystem)
}

func listed(filesystem string) bool {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == filesystem {
			return true
		}
	}
	return false
}
