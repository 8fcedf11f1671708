package guest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A session is a runner that stays for the next command, so that it need not be started for each. It takes one SessionRequest
// after the other from its stdin, as JSON, and answers with frames on its stdout. A command has no input. When one left
// processes behind, the session ends with it: they are the system's then, and no later command's end is theirs.

// SessionCommand is the argument with which the program is a session.
const SessionCommand = "session"

// SessionRequest asks a session to run a command, or to end the one that runs.
type SessionRequest struct {
	Args   []string          `json:"args,omitempty"` // as after the command exec
	Env    map[string]string `json:"env,omitempty"`  // on top of the session's own
	Cancel bool              `json:"cancel,omitempty"`
}

// FrameKind says what a frame is.
type FrameKind byte

// The kinds of frames. Each command has one that it was taken, its outputs, and one that it has ended.
const (
	FrameTaken  FrameKind = 't'
	FrameStdout FrameKind = 'o'
	FrameStderr FrameKind = 'e'
	FrameEnded  FrameKind = 'x' // a SessionEnd
)

// SessionEnd says how a command ended.
type SessionEnd struct {
	ExitCode int  `json:"exit_code"`
	Last     bool `json:"last,omitempty"` // the session ends with it
}

// frameHead is how many bytes come before what a frame has: its kind, and its length as 32 bits.
const frameHead = 5

// ReadFrame reads the head of the next frame; so many bytes follow it. At the end of the stream its error is io.EOF.
func ReadFrame(r io.Reader) (FrameKind, int64, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, err
	}
	return FrameKind(head[0]), int64(binary.BigEndian.Uint32(head[1:])), nil
}

// frames writes frames, whole ones at a time.
type frames struct {
	mu  sync.Mutex
	out io.Writer
}

func (f *frames) write(kind FrameKind, body []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	whole := binary.BigEndian.AppendUint32([]byte{byte(kind)}, uint32(len(body)))
	_, err := f.out.Write(append(whole, body...))
	return err
}

// copy makes frames of what comes from an output. When they can't be written it goes on reading: the session is about to end.
func (f *frames) copy(kind FrameKind, from io.Reader) {
	for b := make([]byte, 32<<10); ; {
		n, err := from.Read(b)
		if n > 0 {
			_ = f.write(kind, b[:n])
		}
		if err != nil {
			return
		}
	}
}

// runSession is the life of a session. It ends with its input.
func runSession(in io.Reader, out io.Writer) error {
	if err := awaitReady(); err != nil {
		return err
	}
	signals := listen()
	requests := make(chan SessionRequest)
	go func() {
		defer close(requests)
		for lines := json.NewDecoder(in); ; {
			var r SessionRequest
			if lines.Decode(&r) != nil {
				break
			}
			if r.Cancel {
				signals <- syscall.SIGTERM
				continue
			}
			requests <- r
		}
		signals <- syscall.SIGTERM // nobody hears of the command any more
	}()
	f := &frames{out: out}
	for {
		select {
		case r, more := <-requests:
			if !more {
				return nil
			}
			if last, err := f.serve(r, signals); last || err != nil {
				return err
			}
		case <-signals:
			return nil
		}
	}
}

// serve runs one command, and tells whether it is the last one.
func (f *frames) serve(r SessionRequest, signals <-chan os.Signal) (last bool, err error) {
	if err := f.write(FrameTaken, nil); err != nil {
		return false, err
	}
	for key, value := range r.Env {
		if err := os.Setenv(key, value); err != nil {
			return false, err
		}
		defer os.Unsetenv(key)
	}
	end, err := f.run(r, signals)
	if err != nil {
		return false, err
	}
	body, err := json.Marshal(end)
	if err != nil {
		return false, err
	}
	return end.Last, f.write(FrameEnded, body)
}

func (f *frames) run(r SessionRequest, signals <-chan os.Signal) (end SessionEnd, err error) {
	var o order
	set := flag.NewFlagSet("session", flag.ContinueOnError)
	o.flags(set)
	if err := set.Parse(r.Args); err != nil {
		return end, err
	}
	o.argv = set.Args()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return end, err
	}
	defer null.Close()
	var read, write [2]*os.File
	for i := range read {
		if read[i], write[i], err = os.Pipe(); err != nil {
			return end, err
		}
		defer read[i].Close()
		defer write[i].Close()
	}
	var copying sync.WaitGroup
	copying.Go(func() { f.copy(FrameStdout, read[0]) })
	copying.Go(func() { f.copy(FrameStderr, read[1]) })
	copied := make(chan struct{})
	go func() {
		copying.Wait()
		close(copied)
	}()
	code, ended := o.run(null, write[0], write[1], signals, func(int) {})
	for _, w := range write {
		_ = w.Close()
	}
	left := leftBehind()
	end = SessionEnd{ExitCode: code, Last: left || ended != byItself}
	// Who was left behind may hold the outputs open, or have handed them to someone.
	for deadline := time.Now().Add(time.Second); ; {
		select {
		case <-copied:
			return end, nil
		case <-time.After(time.Millisecond):
		}
		if late := time.Now().After(deadline); late || left && waiting(read[:]...) == 0 {
			end.Last = true
			for _, r := range read {
				_ = r.SetReadDeadline(time.Now())
			}
			<-copied
			return end, nil
		}
	}
}

// leftBehind tells whether this process has children, after it took note of those that ended.
func leftBehind() bool {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // ECHILD
			return false
		case pid == 0:
			return true
		}
	}
}

// waiting returns how many bytes lie in pipes.
func waiting(pipes ...*os.File) (bytes int) {
	for _, p := range pipes {
		raw, err := p.SyscallConn()
		if err != nil {
			continue
		}
		_ = raw.Control(func(fd uintptr) { // it fails on a closed one, which has nothing
			if n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
				bytes += n
			}
		})
	}
	return bytes
}
