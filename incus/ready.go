package incus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/guest"
)

// readyTimeout bounds the boot of a sandbox.
const readyTimeout = 60 * time.Second

// readyScript waits inside until the sandbox is ready. "A command can be run" is too early: our own first process and
// systemd have yet to set the host name and to mount /run. Of another one nothing is known, so that it counts as ready at
// once. Where many boot at once it looks less often, for each look costs a process. With an argument it also waits for the
// default route, which comes with the address, and says so first.
const readyScript = `
n=0
case $(readlink /proc/1/exe) in
` + guest.Dir + `/*) until [ -e ` + guest.ReadyMark + ` ]; do n=$((n + 1)); [ $n -lt 10 ] && sleep 0.01 || sleep 0.05; done ;;
*/systemd) until [ -S /run/systemd/private ] && systemctl -q is-active systemd-tmpfiles-setup.service && systemctl -q is-active basic.target; do sleep 0.05; done ;;
esac
[ -n "$1" ] || exit 0
echo booted
until grep -q '^eth0[[:space:]]*00000000' /proc/net/route; do sleep 0.02; done
`

// awaitReady returns when an instance that was just started is ready, and has its address when it has a network.
func (b *Backend) awaitReady(ctx context.Context, id string, network bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("it was not ready within %s", readyTimeout))
	defer cancel()
	argument := ""
	if network {
		argument = "network"
	}
	var booted written
	for {
		stderr := heard{most: saidMost}
		code, err := b.exec(ctx, id, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", readyScript, "sh", argument}}, nil, &booted, &stderr)
		switch {
		case ctx.Err() != nil && booted.Load():
			return fmt.Errorf("%w: it booted, and got no address", context.Cause(ctx))
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && code == 0:
			return nil
		case err == nil:
			return fmt.Errorf("it did not become ready: exit code %d: %s", code, &stderr)
		case !tooEarly(err):
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// written is whether anything was written to it.
type written struct{ atomic.Bool }

func (w *written) Write(b []byte) (int, error) {
	w.Store(true)
	return len(b), nil
}

// tooEarly tells whether an exec failed only because the instance was just being started.
func tooEarly(err error) bool {
	return errors.Is(err, errNotRunning) || notYet(err)
}
