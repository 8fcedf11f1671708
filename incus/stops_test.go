package incus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/egress"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

var (
	restoreStops = []stop{restoreBegun, restoreFound, restoreRead, restoreAlone, restoreWired, restoreCopying, restoreCopied, restoreProven,
		restoreStarted, restoreReady, restoreRetiring, restoreRetired}
	createStops = []stop{createBegun, createFree, createRead, createWired, createCopying, createCopied, createProven, createStarted, createWon, createReady}
)

// longLease is what the human extends to.
const longLease = 20 * time.Hour

// beHuman is the life of another process, with a database of its own, which does what it reads and says what came of it.
func beHuman(b *Backend, owner string) error {
	dir, err := os.MkdirTemp("", "pixels-human")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := ledger.Open(filepath.Join(dir, "pixels.db"), func(error) {})
	if err != nil {
		return err
	}
	defer store.Close()
	_, door := manager.NewWithDoor(b, manager.Defaults{Store: store, MaxLease: 48 * time.Hour})
	m := door.Human("test")
	ctx := context.Background()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		do, name, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch do {
		case "cut":
			_, err = m.Panic(ctx, owner, name, false)
		case "cut-lineage":
			_, err = m.Panic(ctx, owner, name, true)
		case "deny":
			if _, err = m.Deny(ctx, m.As(owner), name, []string{deniedName}); errors.Is(err, sandbox.ErrState) {
				err = nil
			}
		case "extend":
			_, err = m.Extend(ctx, m.As(owner), name, longLease)
		case "destroy":
			var d manager.Destroyed
			if d, err = m.Destroy(ctx, m.As(owner), []string{name}); err == nil {
				err = errors.Join(d.Failed[name])
			}
		}
		said := ""
		if err != nil {
			said = err.Error()
		}
		if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
			return err
		}
	}
	return nil
}

// human is that process, as a test sees it.
type human struct {
	mu      sync.Mutex
	in      io.Writer
	answers *json.Decoder
}

func newHuman(t *testing.T, l *lab, owner string) *human {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), killedDoes+"=human", killedOwner+"="+owner, killedNetwork+"="+l.settings.Network, killedProject+"="+l.settings.Project)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil { // "begun"
		t.Fatal(err)
	}
	return &human{in: in, answers: json.NewDecoder(lines)}
}

// do has the human do something, and returns what they were told, empty when it was done.
func (h *human) do(what string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := fmt.Fprintln(h.in, what); err != nil {
		return err.Error()
	}
	var said string
	if err := h.answers.Decode(&said); err != nil {
		return err.Error()
	}
	return said
}

// once has act called the first time that b comes to a stop, and tells afterwards whether it did.
func (b *Backend) once(s stop, act func()) (reached func() bool) {
	var mu sync.Mutex
	done := false
	b.stopAt = func(at stop) {
		mu.Lock()
		first := at == s && !done
		done = done || first
		mu.Unlock()
		if first {
			act()
		}
	}
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		return done
	}
}

// Whatever a human takes from a sandbox, or says of its lease, while it is restored, holds; and one that they destroy then is
// destroyed.
func TestARestoreUndoesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	owner := ownerOf(t)
	h := newHuman(t, l, owner)
	l.box(t, "box", egress.Allowlist, allowedName, deniedName)
	id := l.boxes["box"]
	if _, err := l.CreateCheckpoint(t.Context(), id, "ready", ""); err != nil {
		t.Fatal(err)
	}
	for _, s := range restoreStops {
		if _, err := l.SetEgress(t.Context(), id, func(egress.Mode, []egress.Grant) (egress.Mode, []egress.Grant, error) {
			return egress.Allowlist, grantsOf(t, allowedName, deniedName), nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := l.SetExpiry(t.Context(), id, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		reached := l.once(s, func() {
			for _, what := range []string{"deny box", "extend box", "cut box"} {
				if said := h.do(what); said != "" {
					t.Errorf("%s: %s: %s", s, what, said)
				}
			}
		})
		if _, err := l.Restore(t.Context(), id, "ready"); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		l.background.Wait()
		if !reached() {
			t.Errorf("%q was not reached", s)
		}
		now, err := l.Get(t.Context(), owner, "box")
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		id = now.ID
		l.holds(t, string(s), now, true)
		if left := time.Until(now.ExpiresAt); left < longLease-time.Hour {
			t.Errorf("%s: the lease ends in %s", s, left)
		}
	}
	for _, s := range restoreStops {
		name := fmt.Sprintf("gone-%d", slices.Index(restoreStops, s))
		made, err := l.Create(t.Context(), sandbox.Spec{Name: name, Owner: owner, SourceID: id, SourceLabel: "ready", Egress: egress.None, ExpiresAt: time.Now().Add(time.Hour)})
		if err == nil {
			_, err = l.CreateCheckpoint(t.Context(), made.ID, "ready", "")
		}
		if err != nil {
			t.Fatal(err)
		}
		reached := l.once(s, func() {
			if said := h.do("destroy " + name); said != "" {
				t.Errorf("%s: destroy: %s", s, said)
			}
		})
		_, err = l.Restore(t.Context(), made.ID, "ready")
		t.Logf("%s: %v", s, err)
		l.background.Wait()
		if !reached() {
			t.Errorf("%q was not reached", s)
		}
		if now, err := l.Get(t.Context(), owner, name); !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("%s: it is there still: %v, %v", s, now, err)
		}
	}
	l.stopAt = nil
	if err := l.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	if _, err := l.sweep(t.Context(), owner, sandbox.SweepRules{}); err != nil {
		t.Error(err)
	}
	l.background.Wait()
	soon(t, "of what was destroyed nothing is left", func() bool { return len(ofOwner(t, l.Backend, owner)) == 0 })
}

// holds looks whether what the human did is so, and enforced.
func (l *lab) holds(t *testing.T, when string, box sandbox.Sandbox, denied bool) {
	t.Helper()
	now, err := l.Egress(t.Context(), box.ID)
	if err != nil || box.Egress != egress.None || now.Mode != egress.None || !now.Enforced {
		t.Errorf("%s: its egress is %s, enforced %v (%s), %v", when, box.Egress, now.Enforced, now.Why, err)
	}
	if denied && !slices.ContainsFunc(box.Rules, func(g egress.Grant) bool { return g.Deny && g.Rule.Domain == deniedName }) {
		t.Errorf("%s: the denial is not in %v", when, box.Rules)
	}
}

// What a human takes from a sandbox, or from its lineage, while it is cloned, the clone hasn't got either.
func TestACloneUndoesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	owner := ownerOf(t)
	h := newHuman(t, l, owner)
	store, err := ledger.Open(filepath.Join(t.TempDir(), "pixels.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	agent := manager.New(l.Backend, manager.Defaults{Store: store, Lease: time.Hour, MaxLease: 48 * time.Hour})
	l.box(t, "base", egress.Allowlist, allowedName, deniedName)
	id := l.boxes["base"]
	if _, err := l.CreateCheckpoint(t.Context(), id, "ready", ""); err != nil {
		t.Fatal(err)
	}
	again := func() {
		t.Helper()
		if _, err := l.SetEgress(t.Context(), id, func(egress.Mode, []egress.Grant) (egress.Mode, []egress.Grant, error) {
			return egress.Allowlist, grantsOf(t, allowedName, deniedName), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	mode := egress.Mode("") // that of the source; or the same, asked for
	clone := func(n int) []manager.CloneResult {
		t.Helper()
		made, err := agent.Clone(t.Context(), manager.Agent(owner), manager.CloneRequest{Source: "base:ready", Count: n, Egress: mode})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	for i, s := range createStops {
		again()
		if mode = ""; i%2 == 1 {
			mode = egress.Allowlist
		}
		reached := l.once(s, func() {
			for _, what := range []string{"deny base", "cut-lineage base"} {
				if said := h.do(what); said != "" {
					t.Errorf("%s: %s: %s", s, what, said)
				}
			}
		})
		made := clone(1)[0]
		if !reached() {
			t.Errorf("%q was not reached", s)
		}
		if made.Err != nil {
			t.Fatalf("%s: %v", s, made.Err)
		}
		now, err := l.Get(t.Context(), owner, made.Name)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		l.holds(t, string(s), now, s != createReady) // at the last one the clone is made, and is another sandbox
		l.stopAt = nil

		again()
		answer := ""
		reached = l.once(s, func() {
			answer = h.do("extend base-2")
			if said := h.do("destroy base-2"); said != "" {
				t.Errorf("%s: destroy: %s", s, said)
			}
		})
		gone := clone(1)[0]
		there := strings.Contains(string(s), "copy is made") || strings.Contains(string(s), "proven") || strings.Contains(string(s), "started") || s == createWon || s == createReady
		if !reached() || gone.Name != "base-2" {
			t.Errorf("%q was not reached, or made %s", s, gone.Name)
		}
		if there && answer != "" {
			t.Errorf("%s: extend: %s", s, answer)
		}
		if now, err := l.Get(t.Context(), owner, gone.Name); there && !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("%s: it is there still: %v, %v (%v)", s, now, err, gone.Err)
		}
		l.stopAt = nil
		if said := h.do("destroy base-1") + h.do("destroy base-2"); said != "" {
			t.Error(said)
		}
	}
	again()
	var mu sync.Mutex
	begun := 0
	l.stopAt = func(s stop) {
		if s != createCopied {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if begun++; begun == 3 { // of six, some are further than this one, and some aren't
			if said := h.do("deny base"); said != "" {
				t.Error(said)
			}
		}
	}
	for _, made := range clone(6) {
		if made.Err != nil {
			t.Error(made.Err)
			continue
		}
		now, err := l.Get(t.Context(), owner, made.Name)
		if err != nil || !slices.ContainsFunc(now.Rules, func(g egress.Grant) bool { return g.Deny && g.Rule.Domain == deniedName }) {
			t.Errorf("%s has the rules %v, %v", made.Name, now.Rules, err)
		}
	}
	l.stopAt = nil
	for i := range 6 {
		_ = h.do(fmt.Sprintf("destroy base-%d", i+1))
	}
}

// A change that Incus had accepted before, and carries out afterwards, does not undo a later one.
func TestALateChangeUndoesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	made := l.box(t, "box", egress.Allowlist, allowedName)
	inst, _, err := l.server.with(context.Background()).GetInstance(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	l.late = 5 * time.Second // which the late one comes within
	l.set(t, "box", egress.None)
	op, err := l.server.with(context.Background()).UpdateInstance(made.ID, inst.Writable(), "") // what it was before
	if _, err := finish(t.Context(), l.server, op, err); err != nil {
		t.Fatal(err)
	}
	l.background.Wait()
	l.cache.touch(made.ID)
	now, err := l.Get(t.Context(), made.Owner, "box")
	if err != nil {
		t.Fatal(err)
	}
	l.holds(t, "after a late change", now, false)
}
