package incus

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress"
	"pixels/sandbox"
)

// marker is a library that notes, in a folder of the host, whose process loads it.
func marker(t *testing.T) (library, notes string) {
	t.Helper()
	dir := t.TempDir()
	library, notes = filepath.Join(dir, "marker.so"), filepath.Join(dir, "notes")
	source := `#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void mark(void) { int f = open("` + notes + `", O_CREAT|O_WRONLY|O_APPEND, 0666); if (f >= 0) { write(f, "x", 1); close(f); } }
`
	file := filepath.Join(dir, "marker.c")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return library, notes
}

// What a caller says about the inside acts inside alone, whatever makes the sandbox: a creation, a copy, a restore, a start.
func TestTheEnvironmentActsInsideAlone(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	library, notes := marker(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("echo x >>"+notes+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"LD_PRELOAD": library, "LD_AUDIT": library, "BASH_ENV": script, "ENV": script, "PATH": "/nowhere:/usr/bin:/bin",
		"LINES": "first\nlxc.hook.pre-start = /bin/sh " + script + "\nenvironment.X=y", "LONG": strings.Repeat("l", 32<<10), "QUOTES": `"'$(id)\`,
	}
	outside := func(t *testing.T, id string) {
		t.Helper()
		inst, _, err := b.server.with(context.Background()).GetInstance(id)
		if err != nil {
			t.Fatal(err)
		}
		for key := range inst.ExpandedConfig {
			if strings.HasPrefix(key, "environment.") {
				t.Errorf("Incus was given the setting %s", key)
			}
		}
		if ran, err := os.ReadFile(notes); err == nil {
			t.Errorf("%d processes of the host ran what the environment says", len(ran))
			_ = os.Remove(notes)
		}
	}
	inside := func(t *testing.T, id string) {
		t.Helper()
		b.sessions.close()
		for name, value := range env {
			if got := sh(t, b, id, `/usr/bin/printenv `+name+` 2>/dev/null`); got != value {
				t.Errorf("inside %s is %.80q, not %.80q", name, got, value)
			}
		}
	}
	old := func(t *testing.T, id string) { // as the version before this one made it
		t.Helper()
		inst, etag, err := b.server.with(context.Background()).GetInstance(id)
		if err != nil {
			t.Fatal(err)
		}
		put := inst.Writable()
		maps.DeleteFunc(put.Config, func(key, _ string) bool { return strings.HasPrefix(key, envKeys) })
		for name, value := range env {
			if !strings.Contains(value, "\n") { // Incus takes no lines there
				put.Config[hostEnvKeys+name] = value
			} else {
				put.Config[envKeys+name] = value
			}
		}
		op, err := b.server.with(context.Background()).UpdateInstance(id, put, etag)
		if _, err := finish(t.Context(), b.server, op, err); err != nil {
			t.Fatal(err)
		}
		b.cache.touch(id)
	}

	box := boxOf(t, b, sandbox.Spec{Name: "told", Egress: egress.None, Env: env})
	outside(t, box.ID)
	inside(t, box.ID)
	if _, err := b.CreateCheckpoint(t.Context(), box.ID, "new", ""); err != nil {
		t.Fatal(err)
	}
	for name, label := range map[string]string{"copy": "", "clone": "new"} {
		made := boxOf(t, b, sandbox.Spec{Name: name, SourceID: box.ID, SourceLabel: label, Egress: egress.None})
		outside(t, made.ID)
		inside(t, made.ID)
	}

	old(t, box.ID)
	if _, err := b.CreateCheckpoint(t.Context(), box.ID, "old", ""); err != nil {
		t.Fatal(err)
	}
	for name, label := range map[string]string{"old-copy": "", "old-clone": "old"} {
		made := boxOf(t, b, sandbox.Spec{Name: name, SourceID: box.ID, SourceLabel: label, Egress: egress.None})
		outside(t, made.ID)
		inside(t, made.ID)
	}
	inside(t, box.ID) // as long as nobody swept
	restored, err := b.Restore(t.Context(), box.ID, "old")
	if err != nil {
		t.Fatal(err)
	}
	outside(t, restored.ID)
	inside(t, restored.ID)

	old(t, restored.ID)
	if _, err := b.sweep(t.Context(), ownerOf(t), sandbox.SweepRules{}); err != nil {
		t.Fatal(err)
	}
	outside(t, restored.ID)
	inside(t, restored.ID)

	if err := b.SetState(t.Context(), restored.ID, sandbox.Stopped); err != nil {
		t.Fatal(err)
	}
	old(t, restored.ID)
	if err := b.SetState(t.Context(), restored.ID, sandbox.Running); err != nil {
		t.Fatal(err)
	}
	outside(t, restored.ID)
	inside(t, restored.ID)
}

// Whatever keeps a sandbox from starting keeps nobody from removing it.
func TestASandboxThatDoesNotStartIsRemoved(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	spoil := map[string]struct{ running, stopped func(t *testing.T, id string) }{
		"no-init": {running: func(t *testing.T, id string) { sh(t, b, id, "rm -f /sbin/init") }},
		"init-ends": {running: func(t *testing.T, id string) {
			sh(t, b, id, `rm -f /sbin/init; printf '#!/bin/false\n' >/sbin/init; chmod 755 /sbin/init`)
		}},
		"no-root": {running: func(t *testing.T, id string) { sh(t, b, id, "rm -rf /etc /dev /proc 2>/dev/null; chmod 000 /; true") }},
		"full-disk": {running: func(t *testing.T, id string) {
			sh(t, b, id, "dd if=/dev/zero of=/root/full bs=1M 2>/dev/null; sync; true")
		}},
		// A hook that the host runs fails without its programs, as it did with an environment of older versions.
		"no-path":        {stopped: func(t *testing.T, id string) { setConfig(t, b, id, "environment.PATH", "/opt/venv/bin") }},
		"mount-hook":     {stopped: func(t *testing.T, id string) { setConfig(t, b, id, "raw.lxc", "lxc.hook.mount = /bin/false") }},
		"stop-hook":      {stopped: func(t *testing.T, id string) { setConfig(t, b, id, "raw.lxc", "lxc.hook.stop = /bin/false") }},
		"post-stop-hook": {stopped: func(t *testing.T, id string) { setConfig(t, b, id, "raw.lxc", "lxc.hook.post-stop = /bin/false") }},
	}
	for _, name := range slices.Sorted(maps.Keys(spoil)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, err := b.Create(t.Context(), sandbox.Spec{Name: name, Owner: ownerOf(t), Image: b.config.Image, Egress: egress.None, Limits: sandbox.Limits{Disk: 1 << 30}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = remove(t.Context(), b.server, made.ID) }()
			if spoil[name].running != nil {
				spoil[name].running(t, made.ID)
			}
			if err := b.SetState(t.Context(), made.ID, sandbox.Stopped); err != nil {
				t.Logf("stop: %v", err)
			}
			if spoil[name].stopped != nil {
				spoil[name].stopped(t, made.ID)
			}
			t.Logf("start: %v", b.act(t.Context(), made.ID, "start")) // as Incus does it by itself when it comes up
			// Someone stops by force what isn't running, which Incus waits for without end.
			if _, err := b.server.with(context.Background()).UpdateInstanceState(made.ID, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, ""); err == nil {
				time.Sleep(time.Second)
			}
			if err := b.Destroy(t.Context(), made.ID); err != nil {
				t.Errorf("destroy: %v", err)
			}
			b.background.Wait()
			if _, _, err := b.server.with(context.Background()).GetInstance(made.ID); !missing(err) {
				t.Errorf("it is there still: %v", err)
			}
		})
	}
}

// setConfig sets a key of an instance.
func setConfig(t *testing.T, b *Backend, id, key, value string) {
	t.Helper()
	if err := edit(t.Context(), b.server, id, func(put *api.InstancePut) error { put.Config[key] = value; return nil }); err != nil {
		t.Fatal(err)
	}
}
