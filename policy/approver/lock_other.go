//go:build !unix

package approver

import (
	"os"

	"pixels/internal/fault"
)

// lock refuses: what humans decide is decided on the machine of the server.
func lock(*os.File) (bool, error) {
	return false, fault.Errorf(fault.Invalid, fault.Hint{}, "humans decide on the machine of the server, which is Linux")
}
