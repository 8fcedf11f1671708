//go:build unix

package approver

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lock takes a file's lock unless another process has it.
func lock(f *os.File) (got bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return err == nil, err
}
