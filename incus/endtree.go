package incus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lxc/incus/v6/shared/api"
)

// endScript kills every process with the mark $1 in its environment, and all their descendants, which sudo may have
// stripped of it. It prints their ids.
const endScript = `
found=" "
for path in $(grep -ls "` + markVariable + `=$1" /proc/[0-9]*/environ); do path=${path#/proc/}; found="$found${path%/environ} "; done
more=1
while [ -n "$more" ]; do
	more=
	for line in $(grep -s ^PPid: /proc/[0-9]*/status | tr -d ' \t'); do
		pid=${line#/proc/}; pid=${pid%%/*}; parent=${line##*:}
		case $found in *" $pid "*) continue ;; esac
		case $found in *" $parent "*) found="$found$pid "; more=1 ;; esac
	done
done
[ "$found" = " " ] && exit 0
kill -KILL $found 2>/dev/null
echo $found
`

// endTree ends all processes of a marked command, again until there are none and the command has ended: while it looks,
// new ones can be born. It does so after ctx has ended, for a bounded time.
func (b *Backend) endTree(ctx context.Context, id, mark string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var found string
	var err error
	for {
		found, err = b.killMarked(ctx, id, mark)
		if missing(err) || errors.Is(err, errNotRunning) {
			return nil // the sandbox ended, and with it all that ran
		}
		if e := b.config.unreachable(err); errors.Is(e, ErrUnreachable) {
			return e
		}
		select {
		case <-ended:
			if found == "" && err == nil {
				return nil
			}
		default:
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("what the command started could not be ended within 20 s (processes %s; %v)", found, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// killMarked runs endScript once, as root, and returns the ids of the processes that it killed.
func (b *Backend) killMarked(ctx context.Context, id, mark string) (found string, err error) {
	var out bytes.Buffer
	r, err := b.start(id, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", endScript, "sh", mark}}, nil, &out, nil)
	if err != nil {
		return "", err
	}
	defer r.giveUp()
	select {
	case <-r.ended:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	select {
	case <-r.streams:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	_, err = exitCode(r.op, r.err)
	return strings.TrimSpace(out.String()), err
}
