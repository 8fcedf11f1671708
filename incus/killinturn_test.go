package incus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"
	"golang.org/x/sys/unix"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/server"
	"pixels/internal/testenv"
	"pixels/internal/view"
	"pixels/sandbox"
)

// While a sandbox does what it may and floods with what it may not, each part is killed in turn. Nothing that the policy
// forbids gets out, and what it allows works again afterwards.
func TestKilledInTurn(t *testing.T) {
	l := newLab(t)
	l.wires.stock = usualStock // as a server's, which changes the gateway less often
	self := filepath.Join(t.TempDir(), "pixels-mcp")
	if out, err := exec.Command("go", "build", "-o", self, "pixels/cmd/pixels-mcp").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l.box(t, "one", egress.Allowlist, allowedName+":7")
	l.behind(t, "one", "flood", site)
	_, err := l.StartRun(t.Context(), l.boxes["one"], sandbox.Command{Shell: "while true; do attempt hold " + allowedName + ":7; sleep 0.05; done", User: "root"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	works := func(t *testing.T, what string, within time.Duration) {
		t.Helper()
		l.seen() // with what is on its way
		for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
			if strings.Contains(l.seen(), "tick") {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: what is allowed does not work again within %s\n%s", what, within, l.wiring(t, "one"))
			}
			l.sweepWires(t)
		}
	}
	works(t, "at the start", 10*time.Second)
	kills := []struct {
		what string
		do   func(t *testing.T)
	}{
		{"renewal", func(t *testing.T) {
			ended := make(chan string, 1)
			go func() { ended <- l.try(t, "one", "hold", allowedName+":7") }()
			time.Sleep(300 * time.Millisecond)
			before := childOf(t, l.gatewayPID(t))
			l.weaken(t, "") // another program, with all protections
			if after := childOf(t, l.gatewayPID(t)); after == before {
				t.Error("the worker is the old one")
			}
			time.Sleep(500 * time.Millisecond)
			select {
			case said := <-ended:
				t.Errorf("a connection did not outlive the renewal: %s", said)
			default:
				l.run(t, "one", "pkill", "-9", "-f", "^attempt hold")
				<-ended
			}
		}},
		{"server-kill", func(t *testing.T) { l.killServer(t, self) }},
		{"gateway-kill, its worker", func(t *testing.T) {
			pid := l.gatewayPID(t)
			if err := unix.Kill(childOf(t, pid), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}},
		{"gateway-kill, its first process", func(t *testing.T) {
			if err := unix.Kill(l.gatewayPID(t), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}},
		{"gateway-kill, stopped", func(t *testing.T) {
			op, err := l.server.with(context.Background()).UpdateInstanceState(l.p.config.Gateway(), api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
			if _, err = finish(t.Context(), l.server, op, err); err != nil {
				t.Fatal(err)
			}
		}},
		{"gateway-kill, deleted", func(t *testing.T) {
			if err := l.p.DeleteGateway(t.Context()); err != nil {
				t.Fatal(err)
			}
			e, err := l.Egress(t.Context(), l.boxes["one"])
			if err != nil || e.Enforced || !strings.Contains(view.NotEnforced(e, view.Agent), "pixels-mcp setup") {
				t.Errorf("without a gateway: %+v %v", e, err)
			}
			_, err = l.Create(t.Context(), sandbox.Spec{Name: "none", Owner: "nobody", Image: l.config.Image, Egress: egress.Agent, ExpiresAt: time.Now().Add(time.Hour)})
			if err == nil || !strings.Contains(view.Error(err, view.Agent), "pixels-mcp setup") {
				t.Errorf("a sandbox without a gateway: %v", err)
			}
			if err := l.p.CreateGateway(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"incusd-kill", func(t *testing.T) { killIncusd(t, self) }},
		{"incusd-kill while wires are made", func(t *testing.T) {
			done := make(chan error, 1)
			go func() { done <- l.wires.tend(t.Context(), 1<<20, 120) }()
			made := l.hostEnds(t)
			for end := time.Now().Add(10 * time.Second); len(l.hostEnds(t)) < len(made)+10 && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
			killIncusd(t, self)
			if err := <-done; err == nil {
				t.Fatal("the wires were made before it was killed")
			}
		}},
	}
	kills = slices.Repeat(kills, testenv.Rounds(1, 10))
	if len(kills) > 10 {
		rand.Shuffle(len(kills), func(i, j int) { kills[i], kills[j] = kills[j], kills[i] })
	}
	for _, kill := range kills {
		t.Run(kill.what, func(t *testing.T) {
			l.packets.Seen()
			l.background.Wait() // Incus refuses to stop what is just being changed
			kill.do(t)
			works(t, kill.what, 30*time.Second)
			time.Sleep(200 * time.Millisecond)
			if out := l.arrived(":7 tcp", ":53 udp"); out != "" {
				t.Errorf("got out: %s", out)
			}
		})
	}
	// Nothing is left that Incus doesn't know of.
	if err := l.wires.tend(t.Context(), 1<<20, 64); err != nil {
		t.Fatal(err)
	}
	inst, _, err := l.server.with(context.Background()).GetInstance(l.wires.name)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := l.wires.ask(t.Context(), gateway.Request{Op: gateway.Wires})
	if err != nil {
		t.Fatal(err)
	}
	for _, wire := range reply.Wires {
		if wire.State == gateway.Used || wire.State == gateway.Free && inst.Devices[gateway.Interface(wire.Number)] == nil {
			t.Errorf("left over: %+v", wire)
		}
	}
	free, ends := 0, 0
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // more may just be made
		if reply, err = l.wires.ask(t.Context(), gateway.Request{Op: gateway.Wires}); err != nil {
			t.Fatal(err)
		}
		if free, ends = countFree(reply.Wires), len(l.hostEnds(t)); free >= 64 && ends == free {
			break
		}
	}
	if free < 64 || ends != free {
		t.Errorf("%d wires are free, and %d ends lie on the host", free, ends)
	}
	// The flood is one: with nothing in its way it arrives.
	l.set(t, "one", egress.Unrestricted)
	var arrived string
	all := func() bool {
		return strings.Contains(arrived, "udp") && strings.Contains(arrived, "tcp") && strings.Contains(arrived, "icmp")
	}
	for end := time.Now().Add(10 * time.Second); !all() && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		arrived += l.arrived(":7 tcp", ":53 udp") + "; "
	}
	if !all() {
		t.Errorf("without a policy arrives: %s", arrived)
	}
}

// hostEnds are the wires' ends that lie on the host.
func (l *lab) hostEnds(t *testing.T) (ends []string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if strings.HasPrefix(i.Name, l.wires.ends) {
			ends = append(ends, i.Name)
		}
	}
	return ends
}

// sweepWires is what a server does every few seconds.
func (l *lab) sweepWires(t *testing.T) {
	t.Helper()
	all, err := l.cache.instances(context.Background())
	if err == nil {
		err = l.mendWires(t.Context(), all)
	}
	if err != nil {
		t.Logf("sweep: %v", err)
	}
}

// wiring is what is known of a sandbox's way out.
func (l *lab) wiring(t *testing.T, name string) string {
	t.Helper()
	all, err := l.cache.fresh(context.Background())
	if err != nil {
		return err.Error()
	}
	run, _, _ := l.gatewayRun(t.Context())
	inst := all[l.boxes[name]]
	reply, err := l.wires.ask(t.Context(), gateway.Request{Op: gateway.Wires})
	out := fmt.Sprintf("gateway's run %s, sandbox of %s: %v %v\n", run, inst.LastUsedAt.UTC(), inst.Devices, inst.Config)
	for _, wire := range reply.Wires {
		if wire.Sandbox != "" {
			out += fmt.Sprintf("%+v\n", wire)
		}
	}
	shown, err2 := exec.CommandContext(t.Context(), "incus", "--project", l.config.Project, "exec", l.boxes[name], "--", "sh", "-c", "ip -s address; ip route; cat /etc/resolv.conf; attempt hold "+allowedName+":7 & sleep 2; kill $!").CombinedOutput()
	log, err3 := exec.CommandContext(t.Context(), "incus", "--project", l.config.Project, "console", "--show-log", l.p.config.Gateway()).CombinedOutput()
	return fmt.Sprintf("%s%s\n%s\n%v %v %v", out, shown, log, err, err2, err3)
}

// killServer kills a server that the sandbox's owner uses, just when it was asked for something.
func (l *lab) killServer(t *testing.T, self string) {
	t.Helper()
	owner := ownerOf(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	// With a state and a policy of its own, that grants unasked.
	home := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(home, "pixels"), 0o700), os.WriteFile(filepath.Join(home, "pixels", "policy.toml"), []byte("[egress]\nallow = [\"first.example.com\", \"second.example.com\"]"), 0o600)); err != nil {
		t.Fatal(err)
	}
	c, err := server.Start(t.Context(), "sh", "-c", `echo $$ >"$1"; XDG_CONFIG_HOME="$5" XDG_STATE_HOME="$5" exec "$2" serve --owner "$3" --defaults-network "$4" --incus-project "$6"`, "sh", pidFile, self, owner, l.config.Network, home, l.config.Project)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	allow := func(domains ...string) error {
		return c.Call(t.Context(), "allow_domain", map[string]any{"name": "one", "domains": domains, "reason": "test"}, nil)
	}
	if err := allow("first.example.com"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = allow("second.example.com") }()
	time.Sleep(20 * time.Millisecond)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) gatewayPID(t *testing.T) int {
	t.Helper()
	state, _, err := l.server.with(context.Background()).GetInstanceState(l.p.config.Gateway())
	if err != nil || state.Pid == 0 {
		t.Fatalf("the gateway's process: %v", err)
	}
	return int(state.Pid)
}

// childOf is the gateway's worker, the latest where an older one has connections still.
func childOf(t *testing.T, pid int) (worker int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // any of them may have started it
	if err != nil {
		t.Fatal(err)
	}
	latest := 0
	for _, at := range threads {
		b, _ := os.ReadFile(at)
		for _, word := range strings.Fields(string(b)) {
			child, _ := strconv.Atoi(word)
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
			if began := startOf(child); strings.HasSuffix(strings.Trim(string(line), "\x00"), "serve") && began >= latest {
				worker, latest = child, began
			}
		}
	}
	if worker == 0 {
		t.Fatal("the gateway has no worker")
	}
	return worker
}

// startOf is when a process began, in ticks since the machine did (proc(5)); process numbers begin anew. Zero where it is gone.
func startOf(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, text, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(text)
	if len(fields) < 20 {
		return 0
	}
	start, _ := strconv.Atoi(fields[19])
	return start
}

// killIncusd kills the daemon and starts it again.
func killIncusd(t *testing.T, self string) {
	t.Helper()
	if err := unix.Kill(incusd(t), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, self, "setup").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// incusd is the daemon's process.
func incusd(t *testing.T) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range lines {
		b, _ := os.ReadFile(at)
		words := strings.Split(string(b), "\x00")
		if filepath.Base(words[0]) == "incusd" && (len(words) < 2 || words[1] == "" || strings.HasPrefix(words[1], "--")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(at)))
			return pid
		}
	}
	t.Fatal("there is no incusd")
	return 0
}
