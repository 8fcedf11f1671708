package guest

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// The stdin of a run that others write to later is a pipe with a name in its folder. The runner holds an end to write to, so that the
// command's stdin has no end, until it is told to let go.
const inputPipe = "input"

// endInput asks a run's runner to let go of that end.
const endInput = unix.SIGUSR2

// endOfInput is in place of a signal where stdin is to end.
const endOfInput = "EOF"

// feedTime bounds how long a command may take to read what is written to it.
const feedTime = 10 * time.Second

// errNoInput ends runFeed where nobody reads: the run has ended, or was started with an stdin that is whole.
var errNoInput = errors.New("nobody reads what is written there")

// openInput makes the pipe, writes to it what the run was given, and returns the end that the command reads.
func (d runFolder) openInput(given *os.File) (*os.File, error) {
	let := make(chan os.Signal, 1)
	signal.Notify(let, endInput) // before there is what makes others send it
	path := d.file(inputPipe)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	keep, err := os.OpenFile(path, os.O_RDWR, 0) // which waits for nobody at the other end
	if err != nil {
		return nil, err
	}
	end, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, errors.Join(err, keep.Close())
	}
	// What is written later comes behind that.
	if err := unix.Flock(int(given.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(keep, given)
		_ = unix.Flock(int(given.Fd()), unix.LOCK_UN)
		<-let
		_ = os.Remove(path)
		_ = keep.Close()
	}()
	return end, nil
}

// runFeed writes its own stdin to that of a run, and signals its command.
func runFeed(args []string) error {
	var id, name string
	f := flag.NewFlagSet("feed", flag.ContinueOnError)
	f.StringVar(&id, "id", "", "of the run")
	f.StringVar(&name, "signal", "", "`name` to send to its process group, as INT, or "+endOfInput)
	if err := f.Parse(args); err != nil {
		return err
	}
	d, err := folderOf(id)
	if err != nil {
		return err
	}
	number := unix.SignalNum("SIG" + name) // 0 where there is none of the name
	if name != "" && name != endOfInput && number == 0 {
		return fmt.Errorf("%q is no signal that can be sent", name)
	}
	r, err := d.look()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errNoRun
	case err != nil:
		return err
	case r.State != RunRunning:
		return errNoInput
	}
	b, err := io.ReadAll(io.LimitReader(os.Stdin, maxStdin+1))
	if err == nil && len(b) > 0 {
		err = d.write(b)
	}
	if err != nil {
		return err
	}
	switch {
	case name == endOfInput:
		if _, err := os.Stat(d.file(inputPipe)); err != nil {
			return errNoInput
		}
		return unix.Kill(r.Runner, endInput)
	case number != 0 && r.Process > 0:
		return unix.Kill(-r.Process, number)
	}
	return nil
}

// write writes to the stdin of a run.
func (d runFolder) write(b []byte) error {
	given, err := os.Open(d.file("stdin"))
	if err != nil {
		return err
	}
	defer given.Close()
	late := time.Now().Add(feedTime)
	for unix.Flock(int(given.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		if time.Now().After(late) {
			return errors.New("the command has not read yet what it was given before; nothing was written")
		}
		time.Sleep(10 * time.Millisecond)
	}
	pipe, err := os.OpenFile(d.file(inputPipe), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		return errNoInput
	}
	if err != nil {
		return err
	}
	defer pipe.Close()
	if err := pipe.SetWriteDeadline(late); err != nil {
		return err
	}
	n, err := pipe.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the command reads no more just now: of %d bytes %d were written", len(b), n)
	}
	if errors.Is(err, unix.EPIPE) {
		return errNoInput
	}
	return err
}
