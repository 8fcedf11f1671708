package manager

import (
	"fmt"
	"strings"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// whose tells which sandbox a caller means: NAME is one of their own, and OWNER/NAME one of somebody who shares with them.
// What isn't shared is not there.
func (c *call) whose(caller, name string) (owner, own string, err error) {
	owner, own, other := strings.Cut(name, "/")
	if !other {
		owner, own = caller, name
	}
	if err := sandbox.CheckName(own); err != nil {
		return "", "", err
	}
	if !c.human && !c.set.Shares(owner, caller) {
		return "", "", fault.About(sandbox.ErrNotFound, fmt.Sprintf("sandbox %s", sandbox.Quote(name)), "not found: it is somebody else's, or nobody's")
	}
	return owner, own, nil
}
