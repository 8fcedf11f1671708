package manager

import (
	"fmt"
	"strings"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// whose tells which sandbox a caller means: NAME is one of their own, and OWNER/NAME one of somebody who shares with them, or whose
// token is below theirs.
// What isn't shared is not there.
func (c *call) whose(caller, name string) (owner, own string, err error) {
	owner, own = caller, name
	if i := strings.LastIndex(name, "/"); i >= 0 {
		owner, own = name[:i], name[i+1:]
	}
	if err := sandbox.CheckName(own); err != nil {
		return "", "", err
	}
	if !c.human && !above(caller, owner) && !c.set.Shares(owner, caller) {
		return "", "", fault.About(sandbox.ErrNotFound, fmt.Sprintf("sandbox %s", sandbox.Quote(name)), "not found: it is somebody else's, or nobody's")
	}
	return owner, own, nil
}
