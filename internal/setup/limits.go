package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pixels/internal/neighbour"
)

// kernelLimits are those that all sandboxes of a machine share, with the least that many of them need. With the usual 128
// inotify instances the 22nd system with systemd dies at boot. The numbers are those that Incus advises for production.
var kernelLimits = []struct {
	name  string
	least int
}{
	{"fs.inotify.max_user_instances", 1048576},
	{"fs.inotify.max_user_watches", 1048576},
	{"fs.inotify.max_queued_events", 1048576},
	{"kernel.keys.maxkeys", 2000},
	{"kernel.keys.maxbytes", 2000000},
	// All network namespaces share one table of neighbours, the 1024 of which one sandbox can fill.
	{"net.ipv4.neigh.default.gc_thresh3", neighbour.Limit},
	{"net.ipv4.neigh.default.gc_thresh2", neighbour.Limit / 2},
	{"net.ipv4.neigh.default.gc_thresh1", neighbour.Limit / 8},
}

// limitsFile makes the limits last over a reboot.
const limitsFile = "/etc/sysctl.d/60-pixels.conf"

// limits raises the kernel's limits where they are too low. Sandboxes work without it, so that nothing here is more than
// a warning.
func (j *job) limits() {
	start := time.Now()
	low := lowLimits()
	if len(low) == 0 {
		j.had(start, "kernel limits high enough")
		return
	}
	var lasting strings.Builder
	for _, l := range kernelLimits {
		fmt.Fprintf(&lasting, "%s = %d\n", l.name, l.least)
	}
	for _, l := range low {
		if err := os.WriteFile(sysctlPath(l.name), []byte(strconv.Itoa(l.least)), 0); err != nil {
			j.warn(fmt.Sprintf("sysctl -w %s=%d", l.name, l.least), "many sandboxes at once may fail: %v", err)
			return
		}
	}
	if err := os.WriteFile(limitsFile, []byte(lasting.String()), 0o644); err != nil {
		j.warn("write it yourself", "the raised kernel limits will not outlast a reboot: %v", err)
	}
	j.did(start, "kernel limits raised (inotify, keys, neighbours)")
}

func (j *job) checkLimits() {
	low := lowLimits()
	for _, l := range low {
		j.warn(fmt.Sprintf("%s as root, or sysctl -w %s=%d", setUp, l.name, l.least), "kernel: %s is %d; many sandboxes at once may fail", l.name, l.have)
	}
	if len(low) == 0 {
		j.good("kernel: limits of inotify, keys and neighbours are high enough")
	}
}

type lowLimit struct {
	name        string
	have, least int
}

// lowLimits returns the limits that are too low. What this kernel doesn't have is not.
func lowLimits() (low []lowLimit) {
	for _, l := range kernelLimits {
		b, err := os.ReadFile(sysctlPath(l.name))
		if err != nil {
			continue
		}
		if have, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && have < l.least {
			low = append(low, lowLimit{l.name, have, l.least})
		}
	}
	return low
}

func sysctlPath(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}
