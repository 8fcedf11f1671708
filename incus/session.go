package incus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/guest"
)

// What is kept of sessions that wait for a command.
const (
	sessionsOfOne = 4               // in a sandbox
	sessionsInAll = 64              // of a server
	sessionIdle   = 5 * time.Minute // how long one waits
)

// sessions are those that wait for a command, the last used one last.
type sessions struct {
	mu     sync.Mutex
	idle   []*session
	closed bool
}

// session is a runner inside a sandbox that takes one command after the other; a command that Incus starts costs more.
type session struct {
	id       string // of the instance
	running  *running
	requests *io.PipeWriter
	frames   *bufio.Reader
	drop     func() // ends it
	expiry   *time.Timer
}

// take returns a session of an instance that waits, or nil.
func (s *sessions) take(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, one := range slices.Backward(s.idle) {
		if one.id != id {
			continue
		}
		s.idle = slices.Delete(s.idle, i, i+1)
		one.expiry.Stop()
		select {
		case <-one.running.ended: // with its sandbox, say
			one.drop()
		default:
			return one
		}
	}
	return nil
}

// put keeps a session for the next command, and ends what is too much then.
func (s *sessions) put(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		one.drop()
		return
	}
	one.expiry = time.AfterFunc(sessionIdle, func() { s.expire(one) })
	s.idle = append(s.idle, one)
	same := 0
	for _, each := range s.idle {
		if each.id == one.id {
			same++
		}
	}
	if same <= sessionsOfOne && len(s.idle) <= sessionsInAll {
		return
	}
	oldest := slices.IndexFunc(s.idle, func(each *session) bool { return same <= sessionsOfOne || each.id == one.id })
	s.end(oldest)
}

func (s *sessions) expire(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.idle, one); i >= 0 {
		s.end(i)
	}
}

// end ends the i-th of those that wait. s.mu is held.
func (s *sessions) end(i int) {
	s.idle[i].expiry.Stop()
	s.idle[i].drop()
	s.idle = slices.Delete(s.idle, i, i+1)
}

// close ends all, and those that come later.
func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for len(s.idle) > 0 {
		s.end(0)
	}
}

// openSession starts a session in an instance.
func (b *Backend) openSession(ctx context.Context, id, program string) (*session, error) {
	stdin, requests := io.Pipe()
	frames, stdout := io.Pipe()
	r, err := b.start(ctx, id, api.InstanceExecPost{Command: []string{program, guest.SessionCommand}, Cwd: "/"}, stdin, stdout, nil)
	if err != nil {
		return nil, err
	}
	go func() {
		err := <-r.output
		_ = stdout.CloseWithError(err) // nil is an end
		_ = stdin.Close()
	}()
	return &session{id: id, running: r, requests: requests, frames: bufio.NewReader(frames), drop: func() {
		_ = requests.Close()
		_ = frames.Close()
		r.giveUp()
	}}, nil
}

// errNotTaken means that a session did not take a command, which did not run then.
var errNotTaken = errors.New("the session has ended")

// execInSession runs a command, given as the arguments of the runner's exec, in a session that waits or in a new one.
func (b *Backend) execInSession(ctx context.Context, id, program string, r guest.SessionRequest, stdout, stderr io.Writer) (int, error) {
	s := b.sessions.take(id)
	if s == nil {
		var err error
		if s, err = b.openSession(ctx, id, program); err != nil {
			return 0, fmt.Errorf("%w: %w", errNotTaken, err)
		}
	}
	type result struct {
		guest.SessionEnd
		err error
	}
	ended, over := make(chan result, 1), make(chan struct{})
	go func() {
		defer close(over)
		end, err := s.run(r, stdout, stderr)
		ended <- result{end, err}
	}()
	var it result
	select {
	case it = <-ended:
	case <-ctx.Done():
		defer s.drop()
		go func() { _ = s.send(guest.SessionRequest{Cancel: true}) }() // that it fails shows below
		if err := b.awaitEnd(over, endTimeout); err != nil {
			return 0, err
		}
		return 0, ctx.Err()
	}
	if it.err != nil || it.Last {
		s.drop()
	} else {
		b.sessions.put(s)
	}
	return it.ExitCode, it.err
}

func (s *session) send(r guest.SessionRequest) error {
	line, err := json.Marshal(r)
	if err == nil {
		_, err = s.requests.Write(line)
	}
	return err
}

// run has the session run a command to its end.
func (s *session) run(r guest.SessionRequest, stdout, stderr io.Writer) (end guest.SessionEnd, err error) {
	if s.send(r) != nil {
		return end, errNotTaken
	}
	for taken := false; ; taken = true {
		kind, size, err := guest.ReadFrame(s.frames)
		if err != nil && !taken {
			return end, errNotTaken
		}
		if err != nil {
			return s.killed(err)
		}
		// What comes is the sandbox's word.
		body := io.LimitReader(s.frames, size)
		switch {
		case !taken && kind == guest.FrameTaken && size == 0:
		case taken && kind == guest.FrameStdout:
			err = pass(stdout, body)
		case taken && kind == guest.FrameStderr:
			err = pass(stderr, body)
		case taken && kind == guest.FrameEnded && size <= maxEnd:
			text := make([]byte, size)
			if _, err = io.ReadFull(body, text); err == nil {
				err = json.Unmarshal(text, &end)
			}
			return end, err
		default:
			err = fmt.Errorf("%q of %d bytes is no frame", kind, size)
		}
		if err != nil {
			return end, fmt.Errorf("its output broke off: %w", err)
		}
	}
}

// maxEnd bounds the frame that says how a command ended, in bytes.
const maxEnd = 1 << 10

// killed says how a session ended that someone in the sandbox killed, or that ended with it, and the command with it.
func (s *session) killed(broken error) (end guest.SessionEnd, err error) {
	select {
	case <-s.running.ended:
		end.ExitCode, err = exitCode(s.running.op, s.running.err)
		end.Last = true
		return end, err
	case <-time.After(5 * time.Second):
		return end, fmt.Errorf("its output did not come to an end: %w", broken)
	}
}

// pass passes output on; nil drops it.
func pass(to io.Writer, output io.Reader) error {
	if to == nil {
		to = io.Discard
	}
	_, err := io.Copy(to, output)
	return err
}
