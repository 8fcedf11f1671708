package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// request is what is asked of a human, as far as the demo looks at it.
type request struct {
	ID, Handle, State, Rule, Process, Answer string
	Count                                    int
	At                                       time.Time
}

// human runs the program as a human does, and reads the JSON that it prints into out, unless that is nil.
func (d *Demo) human(ctx context.Context, out any, args ...string) error {
	cmd := d.Human(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// held has a process reach for a file while a human watches: it is held, the request appears, another process approves
// it, and the connection passes.
func (d *Demo) held(ctx context.Context, file *url.URL, get func() (exec, error)) (said string, reached bool, err error) {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watch := d.Human(watching, "requests", "watch", "--json")
	lines, err := watch.StdoutPipe()
	if err != nil {
		return "", false, err
	}
	if err := watch.Start(); err != nil {
		return "", false, err
	}
	defer func() { _ = watch.Wait() }() // it is interrupted
	defer stop()
	asked := make(chan request, 10)
	go func() {
		defer close(asked)
		for text := bufio.NewScanner(lines); text.Scan(); {
			var r request
			// A demo that was interrupted may have left one of a sandbox that is gone.
			if json.Unmarshal(text.Bytes(), &r) == nil && r.Rule == file.Hostname() && r.State == "open" && !r.At.Before(d.began) {
				asked <- r
			}
		}
	}()
	// The earlier attempt asked as well: that there is a human shows by its request, which stands.
	// Right after another server was killed there is none for a moment, for that one's turn to watch is not over yet.
	var r request
	for tries := 0; r.ID == ""; tries++ {
		select {
		case next, open := <-asked:
			if !open {
				return "", false, fmt.Errorf("`requests watch` ended before it showed the request")
			}
			r = next
		case <-time.After(3 * time.Second):
			if tries == 5 {
				return "", false, fmt.Errorf("the attempts before raised no request")
			}
			if _, err := get(); err != nil {
				return "", false, err
			}
		}
	}
	var began struct{ Operation string }
	err = d.client.Call(ctx, "exec", map[string]any{"name": fetch, "background": true, "command": "rm -f got; exec /usr/lib/apt/apt-helper download-file " + file.String() + " got 2>&1"}, &began)
	if err != nil {
		return "", false, err
	}
	start := time.Now()
	var got struct {
		Operations []struct {
			State string
			Exec  exec
		}
	}
	err = d.client.Call(ctx, "wait", map[string]any{"ids": []string{began.Operation}, "timeout": 1}, &got)
	operation, err := one(got.Operations, err)
	if err != nil {
		return "", false, err
	}
	if operation.State != "running" {
		return "", false, fmt.Errorf("it was not held: %+v", got)
	}
	if err := d.human(ctx, &r, "requests", "show", r.ID, "--json"); err != nil {
		return "", false, err
	}
	if err := d.human(ctx, nil, "requests", "approve", r.Handle, "--for", "1h"); err != nil {
		return "", false, err
	}
	took := time.Since(start)
	err = d.client.Call(ctx, "wait", map[string]any{"ids": []string{began.Operation}, "timeout": 20}, &got)
	if operation, err = one(got.Operations, err); err != nil {
		return "", false, err
	}
	ran := operation.Exec
	switch {
	case operation.State != "ended":
		return "", false, fmt.Errorf("it is held still, after its approval")
	case ran.ExitCode == 0:
		return fmt.Sprintf("held for %.1f s: %s wants %s (process %s)\napproved by another process, and fetched %s", took.Seconds(), r.ID, r.Rule, orUnknown(r.Process), file), true, nil
	case strings.Contains(ran.Denied, "no rule allows it"):
		return "", false, fmt.Errorf("approved, and still: %s", ran.Denied)
	}
	return fmt.Sprintf("granted, but this machine has no way to %s", file.Hostname()), false, nil
}

func orUnknown(process string) string {
	if process == "" {
		return "unknown"
	}
	return process
}

// refused has the agent ask for a domain, and the human say no.
func (d *Demo) refused(ctx context.Context) (string, error) {
	var asked struct{ Requests []request }
	ask := map[string]any{"name": fetch, "domains": []string{"somewhere.example.com"}, "reason": "to see what is there"}
	err := d.client.Call(ctx, "allow_domain", ask, &asked)
	r, err := one(asked.Requests, err)
	if err != nil {
		return "", err
	}
	id := r.ID
	// What an earlier demo was refused still is.
	if r.State == "open" {
		if err := d.human(ctx, nil, "requests", "deny", id, "--answer", "not in a demo"); err != nil {
			return "", err
		}
	}
	var waited struct{ Operations []struct{ Result request } }
	err = d.client.Call(ctx, "wait", map[string]any{"ids": []string{id}, "timeout": 10}, &waited)
	operation, err := one(waited.Operations, err)
	if err != nil {
		return "", err
	}
	r = operation.Result
	if r.State != "denied" {
		return "", fmt.Errorf("the request is %s after its denial", r.State)
	}
	return fmt.Sprintf("%s: denied, %q", id, r.Answer), nil
}
