package incus

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/internal/guest"
	"pixels/sandbox/manager"
)

// The benchmark compares with calls of raw Incus in the same run, because a machine's speed changes from run to run. It is
// for `make bench`: tests never assert times.
const (
	benchClones = 32
	benchAtOnce = 8
	benchRounds = 3
)

func TestBenchmark(t *testing.T) {
	onlyToMeasure(t)
	b := realBackend(t)
	owner := fmt.Sprintf("bench-%d", os.Getpid())
	m := manager.New(b, manager.Defaults{Egress: egress.Agent})
	clear := func() {
		t.Helper()
		list, err := b.List(context.Background(), owner)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if err := b.Destroy(context.Background(), s.ID); err != nil {
				t.Error(err)
			}
		}
		b.background.Wait()
	}
	t.Cleanup(clear)
	results := map[string][]time.Duration{}
	took := func(what string, do func()) {
		start := time.Now()
		do()
		results[what] = append(results[what], time.Since(start))
	}
	all := images(t, b)
	for range benchRounds {
		for _, kind := range []string{"base", "base-systemd"} {
			base, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "base", Image: all[kind]})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.CreateCheckpoint(t.Context(), manager.Agent(owner), "base", "ready", ""); err != nil {
				t.Fatal(err)
			}
			took(kind+" clones", func() {
				got, err := m.Clone(t.Context(), manager.Agent(owner), manager.CloneRequest{Source: "base:ready", Count: benchClones, Command: &manager.ExecRequest{Shell: "hostname"}})
				if err != nil || len(got) != benchClones {
					t.Fatal(err)
				}
				for _, c := range got {
					if c.Err != nil || c.ExecErr != nil || c.Exec.Stdout != c.Name+"\n" {
						t.Errorf("%+v", c)
					}
				}
			})
			list, err := b.List(t.Context(), owner)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range list {
				if s.ID != base.ID {
					if err := b.Destroy(t.Context(), s.ID); err != nil {
						t.Fatal(err)
					}
				}
			}
			b.background.Wait()
			var ids []string
			took(kind+" raw", func() { ids = rawClones(t, b, base.ID, benchClones) })
			removeAll(b, ids)
			clear()
		}
	}
	base, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "base", Image: all["base"]})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		took("exec", func() {
			if _, err := m.Exec(t.Context(), manager.Agent(owner), manager.ExecRequest{Name: "base", Argv: []string{"true"}}); err != nil {
				t.Fatal(err)
			}
		})
		took("exec raw", func() {
			if code, err := b.exec(t.Context(), base.ID, api.InstanceExecPost{Command: []string{"true"}}, nil, nil, nil); err != nil || code != 0 {
				t.Fatal(code, err)
			}
		})
	}
	if _, err := m.CreateCheckpoint(t.Context(), manager.Agent(owner), "base", "ready", ""); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		took("clone", func() {
			got, err := m.Clone(t.Context(), manager.Agent(owner), manager.CloneRequest{Source: "base:ready", Names: []string{"one"}, Command: &manager.ExecRequest{Argv: []string{"hostname"}}})
			if err != nil || got[0].Err != nil || got[0].ExecErr != nil {
				t.Fatal(err, got)
			}
		})
		if _, err := m.Destroy(t.Context(), manager.Agent(owner), []string{"one"}); err != nil {
			t.Fatal(err)
		}
		b.background.Wait()
		var ids []string
		took("clone raw", func() { ids = rawClones(t, b, base.ID, 1) })
		removeAll(b, ids)
	}
	median := func(what string) time.Duration {
		slices.Sort(results[what])
		return results[what][len(results[what])/2]
	}
	line := func(what, ours, floor, bound string) {
		a, z := median(ours), median(floor)
		fmt.Printf("%-58s %8.0f ms %8.0f ms   %5.2f   %s\n", what, a.Seconds()*1000, z.Seconds()*1000, a.Seconds()/z.Seconds(), bound)
	}
	fmt.Printf("%-58s %11s %11s %7s   %s\n", "", "ours", "against", "ratio", "bound")
	line(fmt.Sprintf("%d clones with a command, against raw Incus", benchClones), "base clones", "base raw", "1.10")
	line(fmt.Sprintf("%d clones of base-systemd, against raw Incus", benchClones), "base-systemd clones", "base-systemd raw", "")
	line(fmt.Sprintf("%d clones, against those of base-systemd", benchClones), "base clones", "base-systemd clones", "")
	line("exec of true, against raw Incus", "exec", "exec raw", "1.20")
	line("clone of a checkpoint to its first result, against raw", "clone", "clone raw", "1.10")
}

func onlyToMeasure(t *testing.T) {
	t.Helper()
	if os.Getenv("PIXELS_BENCH") == "" {
		t.Skip("`make bench` runs it")
	}
}

// rawClones makes clones of a checkpoint by hand, with a command in each, as quickly as Incus lets one: without a network, for
// the bridge of sandboxes gives an address to nobody but the gateway.
func rawClones(t *testing.T, b *Backend, base string, count int) []string {
	var wg sync.WaitGroup
	slots := make(chan struct{}, benchAtOnce)
	wait := `case $(readlink /proc/1/exe) in */systemd) until [ -S /run/systemd/private ] && systemctl -q is-active systemd-tmpfiles-setup.service && systemctl -q is-active basic.target; do sleep 0.05; done ;; *) until [ -e ` +
		guest.ReadyMark + ` ]; do sleep 0.01; done ;; esac; hostname`
	ids := make([]string, count)
	for i := range count {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			id := fmt.Sprintf("bench-raw-%d-%d", os.Getpid(), i)
			ids[i] = id
			op, err := b.server.with(context.Background()).CreateInstance(api.InstancesPost{
				Name: id, Type: api.InstanceTypeContainer, Source: api.InstanceSource{Type: "copy", Source: base + "/ready"},
				InstancePut: api.InstancePut{Profiles: []string{}, Config: map[string]string{ownerKey: "", nameKey: "", "user.pixels.bench": "true", "security.idmap.isolated": "true"},
					Devices: map[string]map[string]string{"eth0": {"type": "none"}}},
			})
			if _, err = finish(t.Context(), b.server, op, err); err != nil {
				t.Errorf("raw create: %v", err)
				return
			}
			op, err = b.server.with(context.Background()).UpdateInstanceState(id, api.InstanceStatePut{Action: "start", Timeout: -1}, "")
			if _, err = finish(t.Context(), b.server, op, err); err != nil {
				t.Errorf("raw start: %v", err)
				return
			}
			for {
				var out bytes.Buffer
				code, err := b.exec(t.Context(), id, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", wait}}, nil, &out, nil)
				if err == nil && code == 0 {
					return
				}
				if err == nil || !tooEarly(err) {
					t.Errorf("raw exec: %d, %v", code, err)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	return ids
}

func removeAll(b *Backend, ids []string) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, benchAtOnce)
	for _, id := range ids {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			_ = remove(context.Background(), b.server, id) // the next round's name would be taken, and say so
		})
	}
	wg.Wait()
}
