package incus

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/sandbox"
)

// shellScript runs a line in bash where the image has it. Agents write bash, and /bin/sh is dash on Debian.
const shellScript = `[ -x /bin/bash ] && exec /bin/bash -c "$0"; exec /bin/sh -c "$0"`

// launchScript enters a folder as the user who is to run the rest, since Incus itself goes to / when it can't, and runs a
// program as its child: whatever that makes of its environment, it stays the descendant of a process with the mark.
const launchScript = `cd -- "$0" 2>/dev/null || { echo "cwd $0: there is no such folder, or this user may not enter it" >&2; exit 126; }
"$@"
exit $?`

// markVariable is in the environment of every command, with a value of its own each, and tells its processes.
const markVariable = "PIXELS_EXEC"

// errNotRunning means that the instance has no processes to be joined.
var errNotRunning = errors.New("it is not running")

// Exec implements sandbox.Backend.
func (b *Backend) Exec(ctx context.Context, id string, c sandbox.Command) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	inst, _, err := b.server.GetInstance(id)
	if err != nil {
		return 0, b.failed(err, "exec in %s", id)
	}
	name := inst.Config[nameKey]
	if inst.StatusCode != api.Running && inst.StatusCode != api.Ready {
		return 0, fmt.Errorf("sandbox %q is %s, which is the %w for exec", name, strings.ToLower(inst.Status), sandbox.ErrState)
	}
	user := c.User
	if user == "" {
		user = sandbox.DefaultUser
	}
	who, err := b.account(inst, user)
	if err != nil {
		return 0, b.failed(err, "exec in sandbox %s", name)
	}
	argv := c.Argv
	if c.Shell != "" {
		argv = []string{"/bin/sh", "-c", shellScript, c.Shell}
	}
	cwd := c.Cwd
	if cwd == "" {
		cwd = "." // the home, or / where there is none
	}
	argv = append([]string{"/bin/sh", "-c", launchScript, cwd}, argv...)
	env := map[string]string{
		"HOME": who.home, "USER": user, "LOGNAME": user, "LANG": "C.UTF-8", "SHELL": "/bin/bash",
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	for key, value := range inst.Config {
		if key, ok := strings.CutPrefix(key, "environment."); ok {
			env[key] = value
		}
	}
	maps.Copy(env, c.Env)
	post := api.InstanceExecPost{Command: argv, Environment: env, User: who.uid, Group: who.gid, Cwd: who.home}
	code, err := b.exec(ctx, id, post, c.Stdin, c.Stdout, c.Stderr)
	return code, b.failed(err, "exec in sandbox %s", name)
}

// exec runs a command to its end. When ctx ends first, it ends all that the command started and returns ctx's error.
func (b *Backend) exec(ctx context.Context, id string, post api.InstanceExecPost, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	mark := rand.Text()
	if post.Environment == nil {
		post.Environment = map[string]string{}
	}
	post.Environment[markVariable] = mark
	post.WaitForWS = true
	streams := make(chan bool)
	op, err := b.server.ExecInstance(id, post, &client.InstanceExecArgs{
		Stdin: stdin, Stdout: discardIfNil(stdout), Stderr: discardIfNil(stderr), DataDone: streams,
	})
	if err != nil {
		if strings.Contains(err.Error(), "Instance is not running") {
			return 0, errNotRunning
		}
		return 0, err
	}
	type end struct {
		op  *api.Operation
		err error
	}
	ended := make(chan end, 1)
	patient, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	go func() {
		got, err := wait(patient, b.server, op)
		ended <- end{got, err}
	}()
	var e end
	select {
	case e = <-ended:
	case <-ctx.Done():
		if err := b.endTree(ctx, id, mark, func() bool { return len(ended) > 0 }); err != nil {
			return 0, errors.Join(ctx.Err(), err)
		}
		e = <-ended
	}
	// The streams end with the operation, but for what is on its way. A server that died leaves them open for ever.
	select {
	case <-streams:
	case <-time.After(5 * time.Second):
		if e.err == nil {
			e.err = errors.New("its output did not come to an end")
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return exitCode(e.op, e.err)
}

// exitCode reads how a command ended. Incus calls the operation failed when the code is one of those that shells give for
// what they can't run.
func exitCode(op *api.Operation, err error) (int, error) {
	if op == nil {
		return 0, err
	}
	code, ok := op.Metadata["return"].(float64)
	switch {
	case ok && (err == nil || code == sandbox.ExitNotFound || code == sandbox.ExitNotExecutable):
		return int(code), nil
	case err != nil:
		return 0, err
	}
	return 0, fmt.Errorf("Incus did not say how the command ended (%v)", op.Metadata)
}

func discardIfNil(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// endScript kills every process with the mark $1 in its environment, and all their descendants, which sudo may have
// stripped of it. It prints how many there were.
const endScript = `
set -- "$1" $(grep -ls "PIXELS_EXEC=$1" /proc/[0-9]*/environ 2>/dev/null)
shift
found=" "
for path in "$@"; do path=${path#/proc/}; found="$found${path%/environ} "; done
more=1
while [ -n "$more" ]; do
	more=
	grep -s ^PPid: /proc/[0-9]*/status >/dev/null 2>&1 || break
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

// endTree ends all processes of a marked command, again until there are none and the command's operation has ended:
// while it looks, new ones can be born.
func (b *Backend) endTree(ctx context.Context, id, mark string, ended func() bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	for {
		var found bytes.Buffer
		_, err := b.exec(ctx, id, api.InstanceExecPost{Command: []string{"/bin/sh", "-c", endScript, "sh", mark}}, nil, &found, nil)
		if missing(err) || errors.Is(err, errNotRunning) {
			return nil // the sandbox ended, and with it all that ran
		}
		if found.Len() == 0 && err == nil && ended() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the command could not be ended (%s; processes %s)", context.Cause(ctx), bytes.TrimSpace(found.Bytes()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// account is who a command runs as.
type account struct {
	uid, gid uint32
	home     string
}

// account finds a user of an instance by name or number.
func (b *Backend) account(inst *api.Instance, user string) (account, error) {
	if user == "root" || user == "0" {
		return account{0, 0, "/root"}, nil
	}
	if user == sandbox.DefaultUser {
		if a, ok := parseAccount(strings.Split(inst.Config["image."+userProperty], ":")); ok {
			return a, nil
		}
	}
	file, _, err := b.server.GetInstanceFile(inst.Name, "/etc/passwd")
	if err != nil {
		return account{}, fmt.Errorf("look up user %s: %w", user, err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		f := strings.Split(lines.Text(), ":")
		if len(f) < 6 || f[0] != user && f[2] != user {
			continue
		}
		if a, ok := parseAccount([]string{f[2], f[3], f[5]}); ok {
			return a, nil
		}
	}
	return account{}, fmt.Errorf("user %q %w in its /etc/passwd: name another one, root is always there", user, sandbox.ErrNotFound)
}

// parseAccount reads the numbers of user and group, and the home.
func parseAccount(f []string) (account, bool) {
	if len(f) != 3 {
		return account{}, false
	}
	uid, err := strconv.ParseUint(f[0], 10, 32)
	gid, err2 := strconv.ParseUint(f[1], 10, 32)
	return account{uint32(uid), uint32(gid), f[2]}, err == nil && err2 == nil
}
