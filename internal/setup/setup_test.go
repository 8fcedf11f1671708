package setup

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pixels/incus"
	"pixels/incus/incustest"
)

func TestOSRelease(t *testing.T) {
	for name, c := range map[string]struct {
		text, suite string
		want        host
		unknown     bool
	}{
		"debian 12": {"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n",
			"bookworm-backports", host{"debian", "12", "bookworm", "Debian GNU/Linux 12 (bookworm)"}, false},
		"debian 13":    {"# a comment\nID=debian\nVERSION_ID='13'\nVERSION_CODENAME=trixie\n", "", host{"debian", "13", "trixie", "debian 13"}, false},
		"ubuntu 24.04": {"ID=ubuntu\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\n", "", host{"ubuntu", "24.04", "noble", "ubuntu 24.04"}, false},
		"ubuntu 22.04": {"ID=ubuntu\nVERSION_ID=\"22.04\"\n", "", host{"ubuntu", "22.04", "", "ubuntu 22.04"}, true},
		"debian 11":    {"ID=debian\nVERSION_ID=11\n", "", host{"debian", "11", "", "debian 11"}, true},
		"fedora":       {"ID=fedora\nVERSION_ID=41\n", "", host{"fedora", "41", "", "fedora 41"}, true},
		"empty":        {"", "", host{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := parseOSRelease(c.text)
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			suite, err := got.suite()
			if suite != c.suite || (err != nil) != c.unknown {
				t.Errorf("suite %q, %v", suite, err)
			}
			if c.unknown && !strings.Contains(err.Error(), "install Incus 6.0") {
				t.Errorf("the error says nothing about what to do: %v", err)
			}
		})
	}
}

func TestSourcesOfBothFormats(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := writeFile(root, path, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write("/etc/apt/sources.list", "# deb http://old.example/debian bookworm main\n"+
		"deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://one.example/debian bookworm main contrib # why\n"+
		"deb-src http://one.example/debian bookworm main\n\tdeb cdrom:[Debian]/ bookworm main\ndebbogus x y z\n")
	write("/etc/apt/sources.list.d/a.sources", "# a comment\nTypes: deb deb-src\nURIs: mirror+file:///etc/apt/mirrors/m.list\nSuites: bookworm bookworm-updates bookworm-backports\n"+
		"Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n\n"+
		"Types: deb\nEnabled: no\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n\nTypes: deb-src\nURIs: http://src.example\nSuites: bookworm\nComponents: main\n")
	write("/etc/apt/mirrors/m.list", "# mirrors\nhttps://user:word@two.example/debian\tpriority:1\n")
	write("/etc/apt/sources.list.d/ignored.list.disabled", "deb http://three.example/debian bookworm main\n")
	sources, err := readSources(root)
	if err != nil {
		t.Fatal(err)
	}
	if !has(sources, "bookworm-backports") || has(sources, "trixie") {
		t.Error("the configured suites are not told apart")
	}
	main, err := mainSource(sources, "bookworm")
	if err != nil || main.uris[0] != "http://one.example/debian" || main.signedBy != "/usr/share/keyrings/k.gpg" {
		t.Errorf("main source %+v, %v", main, err)
	}
	if _, err := mainSource(sources, "trixie"); err == nil {
		t.Error("a release without a source is no error")
	}
	carried := deb822(withoutPasswords(forRelease(sources, "bookworm")))
	want := "Types: deb\nURIs: http://one.example/debian\nSuites: bookworm\nComponents: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n\n" +
		"Types: deb\nURIs: https://two.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n" +
		"Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n"
	if carried != want {
		t.Errorf("carried over:\n%s\nwant:\n%s", carried, want)
	}
	if again := deb822(parseDeb822(carried)); again != carried {
		t.Errorf("what was written reads back as:\n%s", again)
	}
	if !strings.Contains(deb822(sources), "user:word") {
		t.Error("the build itself lost its password")
	}
}

func TestAptSettingsThatMayEnterAnImage(t *testing.T) {
	dump := `APT::Architecture "amd64";
Acquire::http::Proxy "http://127.0.0.1:3142";
Acquire::https::Proxy "http://me:secret@proxy.example:8080";
Acquire::http::Proxy::plain.example "DIRECT";
Acquire::Check-Date "false";
Acquire::Check-Valid-Until "";
`
	if got, want := aptSettings(dump, true), "Acquire::http::Proxy::plain.example \"DIRECT\";\nAcquire::Check-Date \"false\";\n"; got != want {
		t.Errorf("inside: %s", got)
	}
	if got := aptSettings(dump, false); !strings.Contains(got, "3142") || !strings.Contains(got, "secret") || strings.Contains(got, "amd64") {
		t.Errorf("for the build: %s", got)
	}
}

func TestSubnetAvoidsWhatIsTaken(t *testing.T) {
	for name, c := range map[string]struct {
		taken []string
		want  string
	}{
		"nothing taken":      {nil, "10.66.0.1/22"},
		"first taken":        {[]string{"10.66.0.0/24"}, "10.66.4.1/22"},
		"inside a wider one": {[]string{"10.66.0.0/20"}, "10.66.16.1/22"},
		"a single address":   {[]string{"10.66.0.53/32"}, "10.66.4.1/22"},
		"all of 10/8":        {[]string{"10.0.0.0/8"}, "172.29.0.1/22"},
		"10/8 and 172.16/12": {[]string{"10.0.0.0/8", "172.16.0.0/12"}, "192.168.100.1/22"},
		"no /22 is left":     {[]string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/17", "192.168.128.0/18", "192.168.192.0/19", "192.168.224.0/20", "192.168.240.0/21", "192.168.248.0/22", "192.168.252.0/24"}, "192.168.253.1/24"},
		"all private space":  {[]string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var taken []netip.Prefix
			for _, s := range c.taken {
				taken = append(taken, netip.MustParsePrefix(s))
			}
			got, err := chooseSubnet(taken)
			if got != c.want || (err != nil) != (c.want == "") {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestRoutesAndNameservers(t *testing.T) {
	routes := parseRoutes("default via 192.0.2.1 dev eth0\n192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2\nblackhole 10.9.0.0/16\n" +
		"0.0.0.0/1 via 10.8.0.1 dev tun0\nlocal 192.0.2.2 dev eth0 table local\n10.7.7.7 dev wg0\n\n")
	if want := prefixes("192.0.2.0/24", "10.9.0.0/16", "192.0.2.2/32", "10.7.7.7/32"); !slices.Equal(routes, want) {
		t.Errorf("routes %v, want %v", routes, want)
	}
	servers := parseNameservers("# x\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nsearch example\nnameserver\n")
	if want := prefixes("10.0.0.53/32"); !slices.Equal(servers, want) {
		t.Errorf("nameservers %v, want %v", servers, want)
	}
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestPoolOptionsAreVetted(t *testing.T) {
	for _, c := range []struct {
		size   int64
		driver string
	}{{10 << 20, ""}, {-1, ""}, {0, "lvm"}, {0, "BTRFS"}} {
		if err := checkPool(c.size, c.driver); err == nil {
			t.Errorf("size %d with driver %q is accepted", c.size, c.driver)
		}
	}
	if err := checkPool(5<<30, "auto"); err != nil {
		t.Error(err)
	}
}

func TestMountsAreFoundInnermostFirst(t *testing.T) {
	info := "25 1 254:0 / / rw - ext4 /dev/vda rw\n30 25 0:5 / /var/b/root/proc rw - proc proc rw\n31 30 0:5 / /var/b/root/proc/sys rw - proc proc rw\n" +
		"32 25 0:6 / /var/build rw - tmpfs t rw\n33 25 0:7 / /var/b/a\\040b rw - tmpfs t rw\n"
	got := parseMounts(info, "/var/b")
	if want := []string{"/var/b/a b", "/var/b/root/proc/sys", "/var/b/root/proc"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBuildFolderGoesWithItsLinksButNotTheirTargets(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "build")
	if err := os.MkdirAll(filepath.Join(dir, "root/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "root/etc/link")); err != nil {
		t.Fatal(err)
	}
	// A root's own links must not lead a write of ours out of it.
	if err := writeFile(filepath.Join(dir, "root"), "/etc/link", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := clearBuild(dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "x" {
		t.Errorf("the file outside holds %q, %v", b, err)
	}
	if exists(dir) {
		t.Error("the build folder is still there")
	}
}

func TestRecipeVersionFollowsItsContent(t *testing.T) {
	make := func(change func(*recipe)) string {
		r := recipe{id: "debian", codename: "bookworm", packages: []string{"git"}, files: map[string][]byte{"/a": []byte("1")}, script: []byte("x")}
		change(&r)
		return r.version()
	}
	same := make(func(*recipe) {})
	if again := make(func(r *recipe) { r.aptConf = "only for the build" }); again != same {
		t.Error("what stays out of the image changes its version")
	}
	for name, change := range map[string]func(*recipe){
		"suite": func(r *recipe) { r.codename = "trixie" }, "package": func(r *recipe) { r.packages = append(r.packages, "curl") },
		"file": func(r *recipe) { r.files["/a"] = []byte("2") }, "script": func(r *recipe) { r.script = []byte("y") },
	} {
		if make(change) == same {
			t.Errorf("a change of %s does not change the version", name)
		}
	}
}

func TestDaemonGetsNoSecretsOfTheSession(t *testing.T) {
	got := daemonEnv([]string{"API_TOKEN=x", "https_proxy=http://p", "HOME=/root", "SSL_CERT_FILE=/c", "INCUS_DIR=/d"})
	if want := []string{"https_proxy=http://p", "SSL_CERT_FILE=/c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFirewallThatDropsForwardedPacketsIsSeen(t *testing.T) {
	if !dropsForwarded("table ip filter {\n chain FORWARD {\n  type filter hook forward priority filter; policy drop;\n") {
		t.Error("Docker's policy is not seen")
	}
	if dropsForwarded("chain in { type filter hook input priority filter; policy drop; }\nchain fwd { type filter hook forward priority filter; policy accept; }") {
		t.Error("a policy on input is taken for one on forward")
	}
}

func TestIDRange(t *testing.T) {
	if got := idRange("me:100000:65536\nroot:1000000:65536\nroot:2000000:1000000000\nroot:bad\n"); got != 1000000000 {
		t.Errorf("got %d", got)
	}
}

func TestLockLetsOneSetUpWorkAtATime(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	var out bytes.Buffer
	first, second := newJob(Options{}), newJob(Options{Out: &out})
	first.root, second.root = false, false
	unlock, err := first.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := second.lock(ctx); err == nil {
		t.Fatal("two hold the lock")
	}
	if !strings.Contains(out.String(), "another set-up") {
		t.Errorf("the one that waits says %q", out.String())
	}
	unlock()
	unlock, err = second.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// Doctor must say what is wrong, and how to mend it, where nothing runs at all.
func TestDoctorWithoutIncus(t *testing.T) {
	var out bytes.Buffer
	ok := Doctor(t.Context(), Options{Out: &out, Incus: incus.Config{Socket: filepath.Join(t.TempDir(), "unix.socket")}})
	if ok || !strings.Contains(out.String(), "FAIL  incus:") || !strings.Contains(out.String(), "-> run `pixels-mcp setup`") {
		t.Errorf("ok=%v:\n%s", ok, out.String())
	}
}

// On a machine that is set up, Doctor finds nothing to fail.
func TestDoctorOnReadyMachine(t *testing.T) {
	p := incustest.Need(t)
	var out bytes.Buffer
	j := newJob(Options{Out: &out})
	if err := j.quotas(t.Context(), p); err != nil { // the kernel may have given up its accounts meanwhile
		t.Fatal(err)
	}
	if !Doctor(t.Context(), Options{Out: &out}) {
		t.Errorf("doctor fails:\n%s", out.String())
	}
}
