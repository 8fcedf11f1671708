package sandboxtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"pixels/sandbox"
)

// run is a command in the background of a box.
type run struct {
	mu             sync.Mutex
	state          sandbox.Run
	stdout, stderr []byte
	cancel         context.CancelFunc
	input          *io.PipeWriter // to its stdin; nil where that was whole at the start
	signalled      int            // that ended it
	done           chan struct{}
}

// runWriter appends to an output of a run.
type runWriter struct {
	r   *run
	out *[]byte
}

func (w runWriter) Write(b []byte) (int, error) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	*w.out = append(*w.out, b...)
	return len(b), nil
}

// StartRun implements sandbox.Backend.
func (m *Memory) StartRun(ctx context.Context, id string, c sandbox.Command, timeout time.Duration) (string, error) {
	l, err := m.life(id)
	if err != nil || ctx.Err() != nil {
		return "", errors.Join(err, ctx.Err())
	}
	command := c.Shell
	if command == "" {
		command = strings.Join(c.Argv, " ")
	}
	r := &run{state: sandbox.Run{State: sandbox.RunRunning, Command: command, Started: time.Now()}, done: make(chan struct{})}
	running, cancel := context.WithCancel(context.Background())
	if timeout > 0 {
		running, cancel = context.WithTimeout(context.Background(), timeout)
	}
	r.cancel = cancel
	if c.KeepStdin {
		more, input := io.Pipe()
		if r.input = input; c.Stdin != nil {
			c.Stdin = io.MultiReader(c.Stdin, more)
		} else {
			c.Stdin = more
		}
		context.AfterFunc(running, func() { _ = more.Close() }) // as it is at its end
	}
	c.Stdout, c.Stderr = runWriter{r, &r.stdout}, runWriter{r, &r.stderr}
	name := strings.ToLower(rand.Text())
	m.mu.Lock()
	l.runs[name] = r
	m.mu.Unlock()
	go func() {
		defer close(r.done)
		defer cancel()
		code, err := l.exec(running, c)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.state.State, r.state.ExitCode, r.state.Ended = sandbox.RunEnded, code, time.Now()
		switch {
		case l.ctx.Err() != nil:
			r.state.State, r.state.ExitCode = sandbox.RunLost, -1
		case errors.Is(running.Err(), context.DeadlineExceeded):
			r.state.TimedOut, r.state.ExitCode = true, 124
		case r.signalled != 0:
			r.state.ExitCode = 128 + r.signalled
		case errors.Is(running.Err(), context.Canceled):
			r.state.Cancelled, r.state.ExitCode = true, 143
		case err != nil:
			r.state.ExitCode = 125
		}
	}()
	return name, nil
}

// endings are the signals that end a command in memory, which hears of none.
var endings = map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15}

// Feed implements sandbox.Backend.
func (m *Memory) Feed(_ context.Context, id, name string, f sandbox.Feed) error {
	m.mu.Lock()
	b, err := m.find(id)
	if err != nil {
		m.mu.Unlock()
		return err
	}
	r := b.runs[name]
	m.mu.Unlock()
	if r == nil {
		return fmt.Errorf("run %q %w", name, sandbox.ErrNotFound)
	}
	r.mu.Lock()
	over := r.state.State != sandbox.RunRunning
	r.mu.Unlock()
	nobody := fmt.Errorf("nobody reads what is written there: %w", sandbox.ErrState)
	if over || r.input == nil && (f.Stdin != "" || f.Signal == sandbox.EndOfInput) {
		return nobody
	}
	if f.Stdin != "" {
		if _, err := io.WriteString(r.input, f.Stdin); err != nil {
			return nobody
		}
	}
	if f.Signal == sandbox.EndOfInput {
		return r.input.Close()
	}
	if number := endings[f.Signal]; number != 0 {
		r.mu.Lock()
		r.signalled = number
		r.mu.Unlock()
		r.cancel()
	}
	return nil
}

// Runs implements sandbox.Backend.
func (m *Memory) Runs(_ context.Context, id string) ([]sandbox.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return nil, err
	}
	var all []sandbox.Run
	for name, r := range b.runs {
		r.mu.Lock()
		one := r.state
		r.mu.Unlock()
		one.ID = name
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b sandbox.Run) int { return a.Started.Compare(b.Started) })
	return all, nil
}

// LookAtRun implements sandbox.Backend.
func (m *Memory) LookAtRun(ctx context.Context, id, name string, q sandbox.RunQuery) (sandbox.Run, error) {
	m.mu.Lock()
	b, err := m.find(id)
	if err != nil {
		m.mu.Unlock()
		return sandbox.Run{}, err
	}
	r := b.runs[name]
	m.mu.Unlock()
	if r == nil {
		return sandbox.Run{}, fmt.Errorf("run %q %w", name, sandbox.ErrNotFound)
	}
	if q.Cancel {
		r.cancel()
		q.Wait = 10 * time.Second
	}
	select {
	case <-r.done:
	case <-time.After(q.Wait):
	case <-ctx.Done():
		return sandbox.Run{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.state
	got.Stdout, got.Stderr = part(r.stdout, q.Stdout, q.Limit), part(r.stderr, q.Stderr, q.Limit)
	return got, nil
}

// part is what a query asks for of an output.
func part(all []byte, from, limit int64) sandbox.RunOutput {
	size := int64(len(all))
	if from >= 0 {
		from = min(from, size)
		return sandbox.RunOutput{Head: all[from:min(from+limit, size)], Size: size}
	}
	if size <= limit {
		return sandbox.RunOutput{Head: all, Size: size}
	}
	return sandbox.RunOutput{Head: all[:limit], Tail: all[max(limit, size-limit):], Size: size}
}
