package guest

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A run is a command that goes on behind the call that started it, and behind the server that was called. A runner of its
// own, which nobody waits for, keeps what there is to know in a folder: the outputs, a lock that it holds while it lives,
// and a record. They lie on the disk, so that they can be read after a restart of the sandbox.
const runsDir = "/var/lib/pixels/runs"

// keptRuns is how many runs that have ended are kept.
const keptRuns = 32

// maxStdin bounds what a run may be given to read, in bytes.
const maxStdin = 64 << 20

// States of a run.
const (
	RunRunning = "running"
	RunEnded   = "ended"
	RunLost    = "lost" // its runner ended without a record: the sandbox was stopped, or someone killed it
)

// Run is what is known of a run.
type Run struct {
	State     string    `json:"state"`
	ID        string    `json:"id,omitempty"`      // where several are listed
	Command   string    `json:"command,omitempty"` // what it runs, as far as there is room
	Runner    int       `json:"runner"`            // its process id in the sandbox
	Process   int       `json:"process,omitempty"` // the command's, which leads its group
	ExitCode  int       `json:"exit_code"`
	TimedOut  bool      `json:"timed_out,omitempty"`
	Cancelled bool      `json:"cancelled,omitempty"`
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended"`

	// What was asked for of the outputs, and how long they are.
	Stdout     []byte `json:"stdout,omitempty"`
	StdoutTail []byte `json:"stdout_tail,omitempty"`
	StdoutSize int64  `json:"stdout_size"`
	Stderr     []byte `json:"stderr,omitempty"`
	StderrTail []byte `json:"stderr_tail,omitempty"`
	StderrSize int64  `json:"stderr_size"`
}

type runFolder string

func folderOf(id string) (runFolder, error) {
	if id == "" || strings.ContainsAny(id, "/.") {
		return "", fmt.Errorf("%q is no run", id)
	}
	return runFolder(filepath.Join(runsDir, id)), nil
}

func (d runFolder) file(name string) string { return filepath.Join(string(d), name) }

// record keeps what is known of a run; it is there whole or as it was.
func (d runFolder) record(r Run) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.file("record.new"), b, 0o600); err != nil {
		return err
	}
	return os.Rename(d.file("record.new"), d.file("record"))
}

// look reads what is known of a run.
func (d runFolder) look() (r Run, err error) {
	// The lock is asked for first: a runner that ends in between has written its record before.
	alive := d.alive()
	b, err := os.ReadFile(d.file("record"))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	if r.State == RunRunning && !alive {
		r.State, r.ExitCode = RunLost, -1
	}
	return r, nil
}

// alive tells whether the runner lives.
func (d runFolder) alive() bool {
	f, err := os.Open(d.file("lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// parseRun reads what the commands that make a run are called with.
func parseRun(command string, args []string) (o order, id string, d runFolder, err error) {
	f := flag.NewFlagSet(command, flag.ContinueOnError)
	o.flags(f)
	f.StringVar(&id, "id", "", "of the run")
	if err := f.Parse(args); err != nil {
		return o, "", "", err
	}
	o.argv = f.Args()
	d, err = folderOf(id)
	return o, id, d, err
}

// runSpawn starts a run whose input is what stdin has, and returns when its command was started or refused.
func runSpawn(args []string) error {
	o, id, d, err := parseRun("spawn", args)
	if err == nil {
		err = takeUnkept(o.unkept)
	}
	if err != nil {
		return err
	}
	prune()
	if err := os.MkdirAll(runsDir, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(string(d), 0o700); err != nil {
		return err
	}
	fail := func(err error) error { return errors.Join(err, os.RemoveAll(string(d))) }
	if err := d.fill(os.Stdin); err != nil {
		return fail(err)
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	runner := &exec.Cmd{
		Path: self, Args: append([]string{self, "runner", "-id", id}, orderArgs(o)...), Dir: "/", ExtraFiles: []*os.File{tell},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := runner.Start(); err != nil {
		return fail(err)
	}
	_ = tell.Close()
	_, err = io.ReadAll(ready) // ends when the runner closes its end, or ends
	if _, lookErr := d.look(); lookErr != nil {
		return fail(errors.Join(errors.New("the run could not be started"), err, lookErr))
	}
	return nil
}

// fill makes the files of a run.
func (d runFolder) fill(stdin io.Reader) error {
	for _, name := range []string{"stdin", "stdout", "stderr", "lock"} {
		f, err := os.OpenFile(d.file(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if name == "stdin" {
			n, err := io.Copy(f, io.LimitReader(stdin, maxStdin+1))
			if err == nil && n > maxStdin {
				err = fmt.Errorf("stdin is longer than %d bytes", maxStdin)
			}
			if err != nil {
				return errors.Join(err, f.Close())
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// runRunner is the life of a run's runner.
func runRunner(args []string) error {
	tell := os.NewFile(3, "tell")
	unix.CloseOnExec(3)
	o, _, d, err := parseRun("runner", args)
	if err != nil {
		return err
	}
	lock, err := os.Open(d.file("lock"))
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	var streams [3]*os.File
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		flags := os.O_WRONLY | os.O_APPEND
		if i == 0 {
			flags = os.O_RDONLY
		}
		if streams[i], err = os.OpenFile(d.file(name), flags, 0); err != nil {
			return err
		}
	}
	r := Run{State: RunRunning, Command: shortened(o.argv), Runner: os.Getpid(), Started: time.Now()}
	if err := d.record(r); err != nil {
		return err
	}
	if o.feed {
		if streams[0], err = d.openInput(streams[0]); err != nil {
			return err
		}
	}
	code, ended := o.run(streams[0], streams[1], streams[2], listen(), func(pid int) {
		r.Process = pid
		_ = d.record(r) // without it, it can't be signalled
		_ = tell.Close()
	})
	r.State, r.ExitCode, r.Ended = RunEnded, code, time.Now()
	r.TimedOut, r.Cancelled = ended == byTimeout, ended == byOrder
	return d.record(r)
}

// shortened is a command in a line of at most commandBytes. Of one for the shell it is the line.
func shortened(argv []string) string {
	if len(argv) > 3 && argv[1] == "-c" {
		argv = argv[3:]
	}
	line := strings.Join(argv, " ")
	return strings.ToValidUTF8(line[:min(len(line), commandBytes)], "")
}

// runRuns writes all runs that are kept as JSON, the oldest first, without their outputs.
func runRuns(out io.Writer) error {
	entries, err := os.ReadDir(runsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all := []Run{}
	for _, e := range entries {
		d := runFolder(filepath.Join(runsDir, e.Name()))
		if r, err := d.look(); err == nil {
			r.ID = e.Name()
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b Run) int { return a.Started.Compare(b.Started) })
	return json.NewEncoder(out).Encode(all)
}

// prune removes the oldest runs that have ended.
func prune() {
	entries, err := os.ReadDir(runsDir)
	if err != nil || len(entries) < keptRuns {
		return
	}
	type old struct {
		d  runFolder
		at time.Time
	}
	var ended []old
	for _, e := range entries {
		d := runFolder(filepath.Join(runsDir, e.Name()))
		if r, err := d.look(); err == nil && r.State != RunRunning {
			ended = append(ended, old{d, r.Started})
		}
	}
	slices.SortFunc(ended, func(a, b old) int { return b.at.Compare(a.at) })
	for _, o := range ended[min(len(ended), keptRuns):] {
		_ = os.RemoveAll(string(o.d)) // it only takes room
	}
}

// runWait prints a Run as JSON once it has ended, or after a time. With -cancel it ends it first.
func runWait(args []string, out io.Writer) error {
	var id string
	var wait time.Duration
	var most, fromOut, fromErr int64
	var cancel bool
	f := flag.NewFlagSet("wait", flag.ContinueOnError)
	f.StringVar(&id, "id", "", "of the run")
	f.DurationVar(&wait, "for", 0, "how long to wait for its end")
	f.Int64Var(&most, "most", 10_000, "bytes of each output to print")
	f.Int64Var(&fromOut, "stdout", -1, "where in the output to begin; -1 is both ends of it")
	f.Int64Var(&fromErr, "stderr", -1, "the same for the error output")
	f.BoolVar(&cancel, "cancel", false, "end it")
	if err := f.Parse(args); err != nil {
		return err
	}
	d, err := folderOf(id)
	if err != nil {
		return err
	}
	r, err := d.look()
	if errors.Is(err, fs.ErrNotExist) {
		return errNoRun
	}
	for deadline := time.Now().Add(wait); err == nil && r.State == RunRunning && (cancel || time.Now().Before(deadline)); r, err = d.look() {
		if cancel {
			// The lock is held, so that the process with this id is the runner.
			if err := unix.Kill(r.Runner, cancelSignal); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			cancel, deadline = false, time.Now().Add(15*time.Second)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	if r.Stdout, r.StdoutTail, r.StdoutSize, err = part(d.file("stdout"), fromOut, most); err != nil {
		return err
	}
	if r.Stderr, r.StderrTail, r.StderrSize, err = part(d.file("stderr"), fromErr, most); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// errNoRun ends runWait where there is no such run; its caller knows it by the exit code.
var errNoRun = errors.New("there is no such run")

// part reads from a file: up to most bytes from a place on, or where from is negative up to most of its beginning and of
// its end.
func part(path string, from, most int64) (head, tail []byte, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, 0, err
	}
	defer f.Close()
	s, err := f.Stat()
	if err != nil {
		return nil, nil, 0, err
	}
	size = s.Size()
	read := func(at, n int64) ([]byte, error) { return io.ReadAll(io.NewSectionReader(f, at, n)) }
	if from >= 0 {
		head, err = read(from, min(most, max(size-from, 0)))
		return head, nil, size, err
	}
	if head, err = read(0, min(most, size)); err == nil && size > most {
		n := min(most, size-most)
		tail, err = read(size-n, n)
	}
	return head, tail, size, err
}
