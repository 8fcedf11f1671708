package incus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/gorilla/websocket"
	"github.com/lxc/incus/v6/shared/api"
	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"pixels/internal/fault"
)

// Incus gives few of its errors a code. The others are told apart here, by text as Incus 6.0.4 has it. Each case names the
// test that produces it on real Incus, or says that none does.

// operationError is what an operation of Incus failed with.
type operationError string

func (e operationError) Error() string { return string(e) }

// missing tells whether Incus answered that the thing which was asked for does not exist. The text of an operation's error
// tells no such thing: what is not found there may be anything.
// TestWhatIncusSaysIsToldApart.
func missing(err error) bool { return api.StatusErrorCheck(err, http.StatusNotFound) }

// changedMeanwhile tells whether somebody else changed a thing since it was read. TestWhatIncusSaysIsToldApart.
func changedMeanwhile(err error) bool {
	return api.StatusErrorCheck(err, http.StatusPreconditionFailed)
}

// says tells whether an error has one of some texts.
func says(err error, texts ...string) bool {
	if err == nil {
		return false
	}
	said := err.Error()
	for _, text := range texts {
		if strings.Contains(said, text) {
			return true
		}
	}
	return false
}

// busy tells whether Incus refused a change because it does something else with the instance.
// TestWhatIncusSaysIsToldApart.
func busy(err error) bool { return says(err, "Instance is busy running a") }

// stopping tells whether that is the clean-up after a start that failed. Not produced at will: it lasts for
// milliseconds.
func stopping(err error) bool { return says(err, `Instance is busy running a "stop" operation`) }

// full tells whether Incus failed to write its copy of an instance's settings, which it keeps on the instance's disk. It has
// made the change by then, as a rule. TestAFullDiskKeepsNobodyFromChanges.
func full(err error) bool { return says(err, "backup file", "backup.yaml") }

// nameTaken tells whether Incus refused to make an instance because there is one of the name, with which it may be busy: it is
// just being made, or started. TestWhatIncusSaysIsToldApart; the constraint of the database is not produced by a test.
func nameTaken(err error) bool {
	return says(err, "already exists", "UNIQUE constraint failed") || busy(err)
}

// inUse tells whether Incus holds on to an instance whose stop it could not end, on a full disk, until Incus itself is started again.
// TestNoGarbageOutlivesARestore.
func inUse(err error) bool { return err != nil && strings.HasSuffix(err.Error(), "In use") }

// notFoundInside tells whether something that an instance is made of was not found: a pool, a network.
// TestWhatIncusSaysIsToldApart.
func notFoundInside(err error) bool {
	return err != nil && strings.HasSuffix(err.Error(), "not found")
}

// goneMeanwhile tells whether an instance went while an operation on it began. TestAGatewayThatGoesIsMissing.
func goneMeanwhile(err error) bool {
	return says(err, "Failed to fetch instance") && notFoundInside(err)
}

// notRunning tells whether an instance has no processes to be joined. TestWhatIncusSaysIsToldApart.
func notRunning(err error) bool { return says(err, "Instance is not running") }

// frozen tells whether a command was refused because the instance is paused. TestWhatIncusSaysIsToldApart.
func frozen(err error) bool { return says(err, "Instance is frozen") }

// notYet tells whether a command could not begin because its instance was just being started. Not produced at will: it is a
// matter of milliseconds, and TestManySandboxesOnOneGateway meets it now and then.
func notYet(err error) bool { return says(err, "Failed to retrieve PID of executing child process") }

// noProcess tells whether Incus takes an instance for running whose processes have ended: for a moment, or for good where its start
// failed. TestItIsToldWhatOneUsesThatStops, TestASandboxThatDoesNotStartIsRemoved.
func noProcess(err error) bool { return says(err, "Invalid PID") }

// cardFailed tells whether a start failed for the card. TestWhatIncusSaysIsToldApart.
func cardFailed(err error) bool { return says(err, `Failed to start device "`+card+`"`) }

// snapshotExists tells whether an instance has a snapshot of the name. Not produced at will: one looks before, so that it takes
// two callers at once.
func snapshotExists(err error) bool { return says(err, "already exists") }

// runningAlready tells whether somebody else has started an instance. TestWhatIncusSaysIsToldApart.
func runningAlready(err error) bool { return says(err, "already running") }

// interfaceWent tells whether Incus met another interface of the machine that went while it looked at all of them. Not
// produced at will.
func interfaceWent(err error) bool { return says(err, "does not exist") }

// takenOnHost returns the number of the wire that could not be made because its name, which begins with ends, is taken on the
// host. TestStraysAreDeleted.
func takenOnHost(err error, ends string) (number int, ok bool) {
	_, text, _ := strings.Cut(err.Error(), `Failed to create the veth interfaces "`+ends)
	digits, rest, _ := strings.Cut(text, `"`)
	number, e := strconv.Atoi(digits)
	return number, e == nil && strings.Contains(rest, "File exists")
}

// noRight tells whether this user may not use Incus. TestAUserWithoutTheRightIsToldHowToGetIt, of the command line.
func noRight(err error) bool {
	return errors.Is(err, fs.ErrPermission) || says(err, "permission denied")
}

// failed gives an error of Incus the meaning that callers ask for, and words without Incus's own. what says what was tried.
func (b *Backend) failed(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", what, err)
	case missing(err) && kindOf(err) == fault.Failed:
		return &fault.Error{Kind: fault.NotFound, Problem: what + ": it is " + string(fault.NotFound), Cause: err}
	}
	err = fmt.Errorf("%s: %w", what, inOwnWords(b.config.unreachable(err)))
	if cause := fault.Cause(err); cause != nil && b.config.cause != nil {
		b.config.cause(fmt.Errorf("%w (%w)", err, cause))
	}
	return err
}

// inOwnWords puts what others say in an error into words of ours. The error has what they say as its cause.
func inOwnWords(err error) error {
	foreign := foreignIn(err)
	if len(foreign) == 0 {
		return err
	}
	text := err.Error()
	var theirs []string
	for _, f := range foreign {
		text = strings.ReplaceAll(text, f.Error(), inWords(f))
		theirs = append(theirs, f.Error())
	}
	return &fault.Error{Kind: kindOf(err), Problem: text, Cause: quoted{err, strings.Join(theirs, "; ")}}
}

// quoted is an error of which only what others say is to be shown: the rest is in words of ours already.
type quoted struct {
	error
	theirs string
}

func (q quoted) Error() string { return q.theirs }

func (q quoted) Unwrap() error { return q.error }

// kindOf is the kind that an error has already, or Failed.
func kindOf(err error) fault.Kind {
	kind := fault.Failed
	errors.As(err, &kind)
	return kind
}

// foreignIn returns what of an error's tree has words of Incus, of the file server or of Go, and is not in words of ours yet.
func foreignIn(err error) (out []error) {
	switch err.(type) {
	case *fault.Error:
		return nil
	case nil, noAnswer:
		return nil
	case operationError, api.StatusError, *sftp.StatusError, *url.Error, *net.OpError, *fs.PathError, *websocket.CloseError, *json.SyntaxError, *json.UnmarshalTypeError:
		return []error{err}
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			out = append(out, foreignIn(one)...)
		}
	case interface{ Unwrap() error }:
		out = foreignIn(e.Unwrap())
	}
	return out
}

// inWords says in words of ours what an error of others means.
func inWords(err error) string {
	var dial *net.OpError
	switch {
	case says(err, "no space left on device", "No space left on device"):
		return "the storage pool is full"
	case says(err, "disk quota exceeded", "Disk quota exceeded"):
		return "its disk is full"
	case busy(err):
		return "Incus is busy with it just now; try again"
	case frozen(err):
		return "it is paused"
	case notRunning(err):
		return "it is not running"
	case errors.As(err, &dial):
		return "no connection"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case missing(err):
		return "it is not there"
	}
	var server *sftp.StatusError
	if !errors.As(err, &server) {
		return "Incus could not do it"
	}
	for _, known := range fileErrors {
		if says(err, known.Error()) {
			return known.Error()
		}
	}
	return "it could not be done there"
}

// fileErrors are what the kernel says of files, which the file server puts words around.
var fileErrors = []syscall.Errno{
	unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EEXIST, unix.EINVAL, unix.EROFS, unix.EXDEV, unix.ELOOP, unix.ENAMETOOLONG, unix.EPERM, unix.EBUSY, unix.ETXTBSY,
}
