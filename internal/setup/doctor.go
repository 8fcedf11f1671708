package setup

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"pixels/incus"
	"pixels/internal/program"
)

var setUp = "run `" + program.Name + " setup`"

// Doctor checks each part that sandboxes need, prints a line a check and how to mend what fails, and changes nothing but
// for two sandboxes that it makes for a moment.
// It returns false when something failed; a warning is no failure.
func Doctor(ctx context.Context, o Options) (ok bool) {
	j := newJob(o)
	if j.local() {
		j.checkPackages(ctx)
		j.checkLxcfs()
		j.checkKernel()
		j.checkLimits()
		j.checkIDs("/etc/subuid")
		j.checkIDs("/etc/subgid")
	}
	if p := j.checkServer(ctx); p != nil {
		j.checkPool(ctx, p)
		j.checkQuotas(ctx, p)
		j.checkNetwork(ctx, p)
		j.checkHostRules(ctx, p)
		j.checkImage(ctx, p, kindBase, p.Config().Image, false)
		j.checkImage(ctx, p, kindSystemd, p.Config().Image+systemdSuffix, true)
		j.checkGateway(ctx, p)
	}
	return !j.failed
}

func (j *job) checkPackages(ctx context.Context) {
	lacking := missing(needs())
	if broken := brokenPackages(ctx); len(broken) > 0 {
		j.fail("run `sudo "+program.Name+" setup`, or dpkg --configure -a", "packages half installed: %s", strings.Join(broken, ", "))
		return
	}
	if len(lacking) == 0 {
		j.good("packages: all there")
		return
	}
	mend := "run `sudo " + program.Name + " setup`, or apt-get install " + strings.Join(lacking, " ")
	if h, err := readHost(); err == nil {
		if suite, err := h.suite(); err != nil {
			mend = byHand
		} else if suite != "" {
			mend = "run `sudo " + program.Name + " setup`, or apt-get install -t " + suite + " " + strings.Join(lacking, " ")
		}
	}
	// An Incus from elsewhere can serve; only what set-up itself would use is missing then.
	if findIncusd() != "" {
		j.warn(mend, "packages missing: %s", strings.Join(lacking, ", "))
	} else {
		j.fail(mend, "packages missing: %s", strings.Join(lacking, ", "))
	}
}

func (j *job) checkLxcfs() {
	switch {
	case lxcfsAlive():
		j.good("lxcfs: mounted on %s", lxcfsDir)
	case mounted(lxcfsDir):
		j.fail(setUp+" as root; sandboxes that run now must be restarted after it", "lxcfs: its mount on %s is dead; sandboxes fail to start, or to read their memory and CPUs", lxcfsDir)
	default:
		j.warn(setUp+" as root, or start lxcfs", "lxcfs: not running; sandboxes see the host's memory and CPUs")
	}
}

func (j *job) checkKernel() {
	var has []string
	for _, fs := range []string{"btrfs", "zfs"} {
		if listed(fs) || moduleExists(fs) {
			has = append(has, fs)
		}
	}
	if len(has) > 0 {
		j.good("kernel: %s", strings.Join(has, " and "))
	} else {
		j.warn("use a kernel with btrfs, or install ZFS", "kernel: neither btrfs nor ZFS; clones would be slow")
	}
	for _, m := range []struct{ module, use string }{
		{"bridge", "the gateway's network"}, {"veth", "the wires of sandboxes"},
		{"nf_tables", "packet filtering and NAT"},
	} {
		if kernelFeature(m.module) {
			j.good("kernel: %s", m.module)
		} else {
			j.warn("load the module (modprobe "+m.module+") or use a kernel that has it", "kernel: %s not found; it serves %s", m.module, m.use)
		}
	}
}

// kernelFeature tells whether a module is loaded, built in, or there to be loaded.
func kernelFeature(module string) bool {
	if exists("/sys/module/"+module) || moduleExists(module) {
		return true
	}
	// A module that is built in and has no parameters leaves no trace in /sys/module, but its symbols are in the kernel's.
	probes := map[string]string{"bridge": " br_add_bridge", "veth": " veth_newlink", "nf_tables": " nft_register_chain_type"}
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.Contains(lines.Text(), probes[module]) {
			return true
		}
	}
	return false
}

// moduleExists looks a module up in the running kernel's lists, where names may have dashes for underscores.
func moduleExists(module string) bool {
	var release string
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		release = strings.TrimSpace(string(b))
	}
	pattern := regexp.MustCompile(`(?m)/` + strings.ReplaceAll(regexp.QuoteMeta(module), "_", "[-_]") + `\.ko`)
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		if b, err := os.ReadFile(filepath.Join("/lib/modules", release, list)); err == nil && pattern.Match(b) {
			return true
		}
	}
	return false
}

// checkIDs looks for root's range of user or group ids, from which unprivileged containers take theirs.
func (j *job) checkIDs(path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		// Incus then takes a range of its own choice.
		j.good("ids: no %s; Incus uses its default range", path)
		return
	}
	if n := idRange(string(b)); n >= 65536 {
		j.good("ids: %s gives root %d", path, n)
	} else {
		j.fail("add the line root:1000000:1000000000 to "+path+" and restart Incus", "ids: %s gives root %d, and a sandbox takes 65536", path, n)
	}
}

// idRange returns the largest range of root in a subuid file.
func idRange(text string) (largest int) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 3 && (f[0] == "root" || f[0] == "0") {
			if n, err := strconv.Atoi(f[2]); err == nil {
				largest = max(largest, n)
			}
		}
	}
	return largest
}

func (j *job) checkServer(ctx context.Context) *incus.Provisioner {
	p, err := incus.OpenProvisioner(ctx, j.Options.Incus)
	if err != nil {
		mend := setUp + " as root"
		if !j.local() {
			mend = "check the address and the certificates in the configuration, and that the server runs"
		} else if !errors.Is(err, incus.ErrUnreachable) {
			mend = "join the group incus-admin (adduser NAME incus-admin) and log in again, or run as root"
		}
		j.fail(mend, "incus: %v", err)
		return nil
	}
	s, err := p.Server(ctx)
	if err != nil {
		j.fail("", "incus: %v", err)
		return nil
	}
	if err := incus.CheckVersion(s.Version); err != nil {
		j.fail("", "incus: %v", err)
		return p
	}
	j.good("incus: %s answers, and this user may use it", s.Version)
	if s.Firewall != "" && s.Firewall != "nftables" {
		j.warn("install nftables and restart Incus", "incus: filters with %s, not nftables", s.Firewall)
	}
	return p
}

func (j *job) checkPool(ctx context.Context, p *incus.Provisioner) {
	name := p.Config().Pool
	pool, err := p.Pool(ctx)
	switch {
	case err != nil:
		j.fail("", "pool: %v", err)
	case pool == nil:
		j.fail(setUp, "pool: there is no storage pool %s", name)
	case pool.Broken:
		j.fail(setUp, "pool: %s was never finished", name)
	case pool.Total > 0 && (pool.Total-pool.Used)*10 < pool.Total:
		j.warn("destroy sandboxes or checkpoints, or grow it: incus storage set "+name+" size=...", "pool: %s (%s) is almost full: %s of %s free", name, pool.Driver, gib(pool.Total-pool.Used), gib(pool.Total))
	case pool.Driver == "dir":
		j.warn(dirIsSlow, "pool: %s has the driver dir: clones are slow", name)
	default:
		j.good("pool: %s (%s), %s of %s free", name, pool.Driver, gib(pool.Total-pool.Used), gib(pool.Total))
	}
}

func gib(bytes uint64) string {
	return strconv.FormatFloat(float64(bytes)/(1<<30), 'f', 1, 64) + " GiB"
}

func (j *job) checkNetwork(ctx context.Context, p *incus.Provisioner) {
	name := p.Config().Network
	n, err := p.Network(ctx)
	switch {
	case err != nil:
		j.fail("", "network: %v", err)
		return
	case n == nil:
		j.fail(setUp, "network: there is no network %s", name)
		return
	case n.Broken:
		j.fail(setUp, "network: %s was never finished", name)
		return
	case n.Type != "bridge":
		j.fail("name a bridge of Incus in the configuration (defaults.network), or take that out for one of set-up's own", "network: %s is a %s, no managed bridge", name, n.Type)
		return
	case !n.NAT:
		j.warn("incus network set "+name+" ipv4.nat=true", "network: %s (%s) has no NAT; sandboxes may not get out", name, n.Address)
	default:
		j.good("network: %s (%s, NAT)", name, n.Address)
	}
	if !j.local() {
		return
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err == nil && strings.TrimSpace(string(b)) != "1" {
		j.fail("sysctl -w net.ipv4.ip_forward=1", "network: this machine does not forward IPv4")
	}
	if nft := find("nft"); j.root && nft != "" {
		// Chains of one hook are all asked: no rule of Incus can undo the drop of another's policy.
		if rules, err := exec.CommandContext(ctx, nft, "list", "ruleset").Output(); err == nil && dropsForwarded(string(rules)) {
			j.warn("let it through, with Docker: iptables -I DOCKER-USER -i "+name+" -j ACCEPT; iptables -I DOCKER-USER -o "+name+" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
				"network: a firewall of this machine drops forwarded packets by default (Docker does so)")
		}
	}
}

var forwardDrop = regexp.MustCompile(`hook forward priority [^;]*; policy drop`)

// dropsForwarded tells whether some base chain drops what it doesn't know.
func dropsForwarded(ruleset string) bool { return forwardDrop.MatchString(ruleset) }

// checkImage looks at an image. One that is optional is fine when it is not there.
func (j *job) checkImage(ctx context.Context, p *incus.Provisioner, kind, name string, optional bool) {
	img, err := p.Image(ctx, name)
	switch {
	case err != nil:
		j.fail("", "image: %v", err)
		return
	case img == nil && optional:
		return
	case img == nil:
		j.fail(setUp, "image: there is no image %s", name)
		return
	case !img.Managed:
		j.good("image: %s (%s), not made by pixels", name, img.Description)
		return
	}
	if r, err := currentRecipe(ctx, kind); err == nil && r.version() != img.Version {
		j.warn(setUp+" as root to build it anew", "image: %s (%s) is of an older recipe", name, img.Description)
		return
	}
	j.good("image: %s (%s), current", name, img.Description)
}
