package incus

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fakenet"
)

const (
	benchChanges = 40
	benchLink    = 2_500_000_000 // bits a second
)

// TestBenchmarkEgress measures what the gateway costs.
func TestBenchmarkEgress(t *testing.T) {
	onlyToMeasure(t)
	l := newRoutedLab(t)
	l.box(t, "one", egress.Allowlist, allowedName)
	name := regexp.MustCompile(`198\.18\.\d+\.\d+`).FindString(l.try(t, "one", "dns", "169.254.1.1:53", "udp4", "A", allowedName))
	number := func(text string) int64 {
		t.Helper()
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return n
	}
	p95 := func(took []time.Duration) float64 {
		slices.Sort(took)
		return took[len(took)*95/100].Seconds() * 1000
	}
	line := func(what string, value float64, unit, bound string) {
		fmt.Printf("%-58s %8.2f %-3s %28s\n", what, value, unit, bound)
	}
	var allow, revoke []time.Duration
	for range benchChanges {
		l.set(t, "one", egress.Allowlist)
		start := time.Now()
		first := make(chan int64, 1)
		go func() { first <- number(l.try(t, "one", "until", name+":443", allowedName)) }()
		soon(t, "the sandbox was denied", func() bool {
			denied, err := l.Denials(t.Context(), l.boxes["one"], time.Since(start))
			return err == nil && len(denied) > 0
		})
		start = time.Now()
		l.set(t, "one", egress.Allowlist, allowedName+":7,443")
		allow = append(allow, time.Unix(0, <-first).Sub(start))
		ended := make(chan string, 1)
		l.inet.Seen()
		go func() { ended <- l.try(t, "one", "hold", allowedName+":7") }()
		for !strings.Contains(l.seen(), "tick") {
		}
		start = time.Now()
		l.set(t, "one", egress.Allowlist)
		said := <-ended
		if !strings.Contains(said, "reset") {
			t.Fatalf("revoked: %s", said)
		}
		revoke = append(revoke, time.Unix(0, number(regexp.MustCompile(`ended (\d+)`).FindStringSubmatch(said)[1])).Sub(start))
	}
	line("allow to the first connection, p95", p95(allow), "ms", "100 ms")
	line("revoke to the reset, p95", p95(revoke), "ms", "100 ms")
	line("answer of the gateway's DNS, p95", float64(number(l.try(t, "one", "answers", "2000")))/1e6, "ms", "1 ms")

	l.bridged = true
	l.box(t, "plain", egress.Unrestricted)
	l.bridged = false
	l.set(t, "one", egress.Allowlist, allowedName, allowedName+":9")
	download := func(what, bound, port, host, path string) {
		var ours, plain []time.Duration
		for range 5 {
			ours = append(ours, time.Duration(number(l.try(t, "one", "download", allowedName+port, host, path))))
			plain = append(plain, time.Duration(number(l.try(t, "plain", "download", fakenet.Site+port, host, path))))
		}
		slices.Sort(ours)
		slices.Sort(plain)
		line(what+", gateway against plain NAT", plain[2].Seconds()/ours[2].Seconds(), "", bound)
		line("  which is", 8/ours[2].Seconds(), "Gb/s", "")
	}
	download("TCP download", "0.75 or more", ":9", "", "1000000000")
	download("HTTPS download", "0.75 or more", ":443", allowedName, "/bytes/1000000000")
	download("HTTP download", "0.75 or more", ":80", allowedName, "/bytes/1000000000")
	l.inet.Limit("up0", benchLink)
	download("TCP download at 2.5 Gb/s", "0.75 or more", ":9", "", "1000000000")

	if err := l.wires.tend(t.Context(), 64, 64); err != nil {
		t.Fatal(err)
	}
	presets := l.config.Presets.For(egress.Agent, nil)
	for i := range 63 {
		if _, err := l.wires.ask(t.Context(), gateway.Request{Op: gateway.Take, Sandbox: fmt.Sprint("bench-", i), Policy: &presets}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	line("memory of the gateway with 64 wires", l.gatewayMemory(t), "MB", "30 MB")
	line("memory of an idle server", serverMemory(t, l), "MB", "40 MB")
}

// gatewayMemory is what the gateway's processes hold, in MB.
func (l *lab) gatewayMemory(t *testing.T) float64 {
	t.Helper()
	pid := l.gatewayPID(t)
	return resident(t, pid) + resident(t, childOf(t, pid))
}

func resident(t *testing.T, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^Pss: +(\d+) kB`).FindSubmatch(b)
	if found == nil {
		t.Fatalf("%s", b)
	}
	kb, _ := strconv.ParseFloat(string(found[1]), 64)
	return kb * 1024 / 1e6
}

func serverMemory(t *testing.T, l *lab) float64 {
	t.Helper()
	self := filepath.Join(t.TempDir(), "pixels-mcp")
	if out, err := exec.Command("go", "build", "-o", self, "pixels/cmd/pixels-mcp").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := exec.Command(self, "serve", "--owner", "bench-idle", "--defaults-network", l.config.Network)
	c.Env = append(os.Environ(), "XDG_STATE_HOME="+t.TempDir())
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = in.Close(), c.Wait() }()
	time.Sleep(5 * time.Second)
	return resident(t, c.Process.Pid)
}
