package incus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// Each cause that Incus names by text alone is produced, as far as a test can at will, and told apart.
func TestWhatIncusSaysIsToldApart(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	made := box(t, b, "says")
	ctx := t.Context()
	change := func(action string) error {
		op, err := b.server.commit(ctx).UpdateInstanceState(made.ID, api.InstanceStatePut{Action: action, Timeout: -1, Force: true}, "")
		_, err = finish(ctx, b.server, op, err)
		return err
	}
	must := func(action string) {
		t.Helper()
		if err := change(action); err != nil {
			t.Fatal(err)
		}
	}
	run := func() error {
		_, err := b.exec(ctx, made.ID, api.InstanceExecPost{Command: []string{"true"}}, nil, nil, nil)
		return err
	}
	create := func(edit func(*api.InstancesPost)) error {
		post, err := b.instance(ctx, sandbox.Spec{Name: "other", Owner: made.Owner, Image: b.config.Image, Egress: "none"})
		if err != nil {
			return err
		}
		edit(&post)
		op, err := b.server.commit(ctx).CreateInstance(post)
		_, err = finish(ctx, b.server, op, err)
		return err
	}
	is := func(what string, err error, tell func(error) bool) {
		t.Helper()
		if err == nil || !tell(err) {
			t.Errorf("%s is not told apart: %v", what, err)
		}
	}

	_, _, err := b.server.with(ctx).GetInstance("pixels-none")
	is("what is missing", err, missing)
	inst, etag, err := b.server.with(ctx).GetInstance(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	put := inst.Writable()
	put.Config["user.a"] = "1"
	op, err := b.server.commit(ctx).UpdateInstance(made.ID, put, etag)
	if _, err = finish(ctx, b.server, op, err); err != nil {
		t.Fatal(err)
	}
	put.Config["user.a"] = "2"
	op, err = b.server.commit(ctx).UpdateInstance(made.ID, put, etag)
	_, err = finish(ctx, b.server, op, err)
	is("a change by somebody else", err, changedMeanwhile)
	is("a start of what runs", change("start"), runningAlready)
	is("a taken name", create(func(p *api.InstancesPost) { p.Name = made.ID }), nameTaken)
	is("a pool that is not there", create(func(p *api.InstancesPost) { p.Devices["root"]["pool"] = "pixels-none" }), notFoundInside)
	must("freeze")
	_, _, err = command(ctx, b.server, made.ID, api.InstanceExecPost{Command: []string{"true"}})
	is("a command in what is paused", err, frozen)
	must("unfreeze")
	var clash error
	for tries := 0; clash == nil && tries < 20; tries++ { // a matter of milliseconds
		var name string
		if err := create(func(p *api.InstancesPost) { name = p.Name }); err != nil {
			t.Fatal(err)
		}
		op, err := b.server.commit(ctx).DeleteInstance(name)
		if err != nil {
			t.Fatal(err)
		}
		start, started := b.server.commit(ctx).UpdateInstanceState(name, api.InstanceStatePut{Action: "start", Timeout: -1}, "")
		if _, started = finish(ctx, b.server, start, started); busy(started) {
			clash = started
		}
		_, _ = finish(ctx, b.server, op, nil) // which the start may have been before
		if err := remove(ctx, b.server, name); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			t.Fatal(err)
		}
	}
	is("what Incus is busy with", clash, busy)
	must("stop")
	if err := run(); !errors.Is(err, errNotRunning) {
		t.Errorf("a command in what is stopped: %v", err)
	}
	err = edit(ctx, b.server, made.ID, func(put *api.InstancePut) error {
		put.Devices[card] = map[string]string{"type": "nic", "nictype": "physical", "parent": "pixels-none", "name": card}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	is("a card whose other end is gone", change("start"), cardFailed)
}

// Callers read no words of others, and nothing of the host's folders.
func TestNoForeignWordsReachACaller(t *testing.T) {
	t.Parallel()
	b := &Backend{config: Config{}.withDefaults()}
	const secret = "/var/lib/incus/storage-pools/pixels/containers/x"
	for _, c := range []struct {
		err  error
		kind fault.Kind
		says string
	}{
		{operationError("Failed to run: zfs set " + secret + ": exit 1"), fault.Failed, "make it: Incus could not do it"},
		{fmt.Errorf("find it a way out: %w", operationError(secret)), fault.Failed, "make it: find it a way out: Incus could not do it"},
		{operationError("mkdir " + secret + ": no space left on device"), fault.Failed, "make it: the storage pool is full"},
		{fmt.Errorf("%w: %w", fault.State, operationError(secret+": disk quota exceeded")), fault.State, "make it: wrong state: its disk is full"},
		{api.StatusErrorf(500, "%s", secret), fault.Failed, "make it: Incus could not do it"},
		{api.StatusErrorf(404, "%s", secret), fault.NotFound, "make it: it is not found"},
		{errors.New("it was not ready within 1m0s"), "", "make it: it was not ready within 1m0s"},
		{noAnswer{callLimit}, fault.Unavailable, "make it: unavailable: Incus does not answer (it took the call, and gave no answer within 15s)"},
		{context.Canceled, "", "make it: context canceled"},
	} {
		err := b.failed(c.err, "make it")
		if err.Error() != c.says || strings.Contains(err.Error(), secret) || c.kind != "" && !errors.Is(err, c.kind) || !errors.Is(err, c.err) && c.kind != fault.Unavailable {
			t.Errorf("%v becomes %v, which is to be %q of the kind %q", c.err, err, c.says, c.kind)
		}
	}
}

// Nor does a caller read what the file server of a sandbox says.
func TestTheFileServersWordsReachNoCaller(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	f, err := b.OpenFiles(t.Context(), box(t, b, "files").ID)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, readErr := f.ReadDir("/etc/passwd")
	_, createErr := f.Create("/proc/none")
	_, linkErr := f.ReadLink("/etc/passwd")
	for what, err := range map[string]error{
		"mkdir": f.Mkdir("/proc/none"), "remove": f.Remove("/proc/1"), "rename": f.Rename("/etc/passwd", "/proc/none"), "list": readErr, "create": createErr, "readlink": linkErr,
	} {
		if err == nil || strings.Contains(err.Error(), "sftp") || strings.Contains(err.Error(), "SSH") {
			t.Errorf("%s: %v", what, err)
		}
		t.Logf("%s: %v (%v)", what, err, fault.Cause(err))
	}
	if _, err := f.Stat("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}
