// Package demo does the main job for real and prints it as it happens: a base, a checkpoint, clones that work side by
// side, and an end that leaves nothing. It goes through the MCP server, as an agent does.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"pixels/internal/server"
)

// Owner is whom the demo's sandboxes belong to. All of its sandboxes are the demo's to remove.
const Owner = "demo"

// clones is how many copies work side by side.
const clones = 3

// work is what each clone does: it counts the primes up to a thousand times its number.
const work = `n=${HOSTNAME##*-}; echo "$(./primes $((n * 1000))) primes up to $((n * 1000))"`

// program counts the primes up to its argument.
const program = "#!/bin/bash\nseq 2 \"$1\" | factor | awk 'NF == 2' | wc -l\n"

// exec is what a command left.
type exec struct {
	ExitCode int `json:"exit_code"`
	Stdout   string
	Stderr   string
	Denied   string
}

// Demo is one run.
type Demo struct {
	Out   io.Writer
	Start func(context.Context) (*server.Client, error)         // of a server whose owner is Owner
	Human func(ctx context.Context, args ...string) *osexec.Cmd // the program on a human's command line, for that owner

	client *server.Client
	steps  []step
	began  time.Time
}

type step struct {
	name, found string
	took        time.Duration
}

// Run does the job and removes what it made, also when it fails or ctx ends.
func (d *Demo) Run(ctx context.Context) error {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.removeAll(ctx, "remove what an earlier demo left"); err != nil {
		return err
	}
	d.began = time.Now().Truncate(time.Millisecond) // as the times of requests are
	err = d.job(ctx)
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		if e := d.removeAll(clean, "remove what was made"); e != nil {
			return errors.Join(err, fmt.Errorf("and what was made is not all gone (the next demo removes it): %w", e))
		}
		fmt.Fprintln(d.Out, "  nothing is left")
		return err
	}
	d.table()
	return nil
}

// job is the story. What it leaves when it fails, Run removes.
func (d *Demo) job(ctx context.Context) (err error) {
	if d.client, err = d.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.client.Close()) }()
	err = d.step("create the sandbox base", func() (string, error) {
		var made struct{ State, From string }
		err := d.client.Call(ctx, "create_sandbox", map[string]any{"name": "base", "egress": "agent"}, &made)
		return made.State + ", from " + made.From, err
	})
	if err != nil {
		return err
	}
	err = d.step("write a file and run it", func() (string, error) {
		err := d.client.Call(ctx, "write_file", map[string]any{"name": "base", "path": "primes", "content": program, "mode": "755"}, nil)
		if err != nil {
			return "", err
		}
		return d.run(ctx, "./primes 100", "25")
	})
	if err != nil {
		return err
	}
	err = d.step("checkpoint it", func() (string, error) {
		var made struct{ Checkpoint string }
		err := d.client.Call(ctx, "create_checkpoint", map[string]any{"name": "base", "label": "ready", "description": "with the program"}, &made)
		return made.Checkpoint, err
	})
	if err != nil {
		return err
	}
	err = d.step("edit the file, then restore it", func() (string, error) {
		err := d.client.Call(ctx, "edit_file", map[string]any{"name": "base", "path": "primes", "old_text": "NF == 2", "new_text": "NF == 3"}, nil)
		if err != nil {
			return "", err
		}
		broken, err := d.run(ctx, "./primes 100", "34")
		if err != nil {
			return "", err
		}
		if err := d.client.Call(ctx, "restore_checkpoint", map[string]any{"name": "base", "label": "ready"}, nil); err != nil {
			return "", err
		}
		whole, err := d.run(ctx, "./primes 100", "25")
		return broken + " after the edit, " + whole + " again after the restore", err
	})
	if err != nil {
		return err
	}
	err = d.step("run in the background and wait", func() (string, error) {
		var started struct{ Operation string }
		err := d.client.Call(ctx, "exec", map[string]any{"name": "base", "command": "sleep 0.5; ./primes 200000", "background": true}, &started)
		if err != nil {
			return "", err
		}
		var got struct {
			Operations []struct {
				State string
				Exec  exec
			}
		}
		err = d.client.Call(ctx, "wait", map[string]any{"ids": []string{started.Operation}}, &got)
		operation, err := one(got.Operations, err)
		if err == nil && (operation.State != "ended" || strings.TrimSpace(operation.Exec.Stdout) != "17984") {
			err = fmt.Errorf("it is %+v, and there are 17984 primes below 200000", got)
		}
		return started.Operation + ": 17984 primes up to 200000", err
	})
	if err != nil {
		return err
	}
	err = d.step(fmt.Sprintf("clone it %d times, with work in each", clones), func() (string, error) {
		var got struct {
			Clones []struct {
				Name, Error string
				Exec        exec
			}
			Made, Failed int
		}
		err := d.client.Call(ctx, "clone_sandbox", map[string]any{"source": "base:ready", "count": clones, "command": work}, &got)
		if err != nil {
			return "", err
		}
		var found []string
		for _, c := range got.Clones {
			if c.Error != "" || c.Exec.ExitCode != 0 {
				return "", fmt.Errorf("clone %s: exit code %d, %s %s", c.Name, c.Exec.ExitCode, c.Exec.Stderr, c.Error)
			}
			found = append(found, c.Name+": "+strings.TrimSpace(c.Exec.Stdout))
		}
		if len(found) != clones {
			return "", fmt.Errorf("made %d of %d clones", len(found), clones)
		}
		return strings.Join(found, "\n"), nil
	})
	if err != nil {
		return err
	}
	if err := d.egress(ctx); err != nil {
		return err
	}
	var names []string
	err = d.step("list all", func() (string, error) {
		names, err = d.list(ctx)
		if err == nil && len(names) != clones+2 {
			err = fmt.Errorf("there are %v, and %d were made", names, clones+2)
		}
		return strings.Join(names, ", "), err
	})
	if err != nil {
		return err
	}
	return d.step("destroy all", func() (string, error) {
		if err := d.client.Call(ctx, "destroy_sandbox", map[string]any{"names": names}, nil); err != nil {
			return "", err
		}
		left, err := d.list(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("still there: %v", left)
		}
		return "nothing is left", err
	})
}

// run runs a line in the sandbox base, which must print what is wanted.
func (d *Demo) run(ctx context.Context, line, want string) (string, error) {
	var ran exec
	err := d.client.Call(ctx, "exec", map[string]any{"name": "base", "command": line}, &ran)
	got := strings.TrimSpace(ran.Stdout)
	if err == nil && (ran.ExitCode != 0 || got != want) {
		err = fmt.Errorf("%s gave exit code %d, %q, %q, and not %s", line, ran.ExitCode, ran.Stdout, ran.Stderr, want)
	}
	return got + " primes", err
}

// list names the owner's sandboxes.
func (d *Demo) list(ctx context.Context) (names []string, err error) {
	var got struct{ Sandboxes []struct{ Name string } }
	err = d.client.Call(ctx, "list_sandboxes", nil, &got)
	for _, s := range got.Sandboxes {
		names = append(names, s.Name)
	}
	return slices.Compact(names), err
}

// removeAll removes all of the owner's sandboxes by a server of its own: the one of the job may have died. It looks again
// until there are none, because Incus may still be finishing what a killed server had begun.
func (d *Demo) removeAll(ctx context.Context, name string) (err error) {
	if d.client, err = d.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.client.Close()) }()
	for {
		names, err := d.list(ctx)
		if err != nil || len(names) == 0 {
			return err
		}
		err = d.step(name, func() (string, error) {
			return strings.Join(names, ", "), d.client.Call(ctx, "destroy_sandbox", map[string]any{"names": names}, nil)
		})
		if err != nil {
			return err
		}
	}
}

// step does one thing, and prints what it is before and how long it took after.
func (d *Demo) step(name string, do func() (found string, err error)) error {
	fmt.Fprintf(d.Out, "  %-40s ", name)
	start := time.Now()
	found, err := do()
	took := time.Since(start)
	if err != nil {
		fmt.Fprintf(d.Out, "%6.2f s  failed\n", took.Seconds())
		return fmt.Errorf("%s: %w", name, err)
	}
	d.steps = append(d.steps, step{name, found, took})
	fmt.Fprintf(d.Out, "%6.2f s  %s\n", took.Seconds(), strings.ReplaceAll(found, "\n", "\n"+strings.Repeat(" ", 53)))
	return nil
}

// table sums the run up.
func (d *Demo) table() {
	fmt.Fprintln(d.Out)
	w := tabwriter.NewWriter(d.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  STEP\tSECONDS")
	var sum time.Duration
	for _, s := range d.steps {
		fmt.Fprintf(w, "  %s\t%7.2f\n", s.name, s.took.Seconds())
		sum += s.took
	}
	fmt.Fprintf(w, "  all\t%7.2f\n", sum.Seconds())
	_ = w.Flush()
}

// lock makes sure that one demo runs at a time: they share their owner. The kernel lets go of it however the process ends.
func lock() (unlock func(), err error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("pixels-demo-%d.lock", os.Getuid()))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the demo: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another demo is running (%s is locked): wait for it to end", path), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
