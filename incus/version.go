package incus

import (
	"cmp"
	"context"
	"strconv"
	"strings"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// oldest is the first release of Incus that has all that is used here.
const oldest = 6

// CheckVersion refuses an Incus that lacks what is used here. What isn't a number may be a release of the future.
func CheckVersion(version string) error {
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n >= oldest {
		return nil
	}
	return fault.Errorf(sandbox.ErrUnavailable, fault.Hint{}, "Incus %s is too old: install %d.0 or newer", version, oldest)
}

// orTooOld is why a call failed: an old Incus says of what it hasn't got that it is not found.
func orTooOld(ctx context.Context, server *daemon, err error) error {
	if !missing(err) {
		return err
	}
	s, _, failed := server.with(ctx).GetServer()
	if failed != nil {
		return err
	}
	return cmp.Or(CheckVersion(s.Environment.ServerVersion), err)
}
