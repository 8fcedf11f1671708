package guest

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A runner adopts what its command's children leave behind, as the first process of a system does: whatever they do, they
// stay its descendants until it ends.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// process is an entry of /proc.
type process struct {
	parent int
	zombie bool
}

// processes reads all that this one can see, by id.
func processes() map[int]process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	all := map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it ended meanwhile
		}
		// The name in parentheses may hold anything, parentheses too.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(string(fields[1]))
		all[pid] = process{parent, fields[0][0] == 'Z'}
	}
	return all
}

// descendants returns the living ones of this process.
func descendants() (pids []int) {
	all, own := processes(), os.Getpid()
	for pid, p := range all {
		if p.zombie {
			continue
		}
		for up := p.parent; up > 1; up = all[up].parent {
			if up == own {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// killTree ends all descendants, again until there are none: while it looks, new ones can be born.
func killTree() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pids := descendants()
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the command's processes can't be ended")
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
	}
}

// reapOrphans takes note of adopted processes that ended. main is someone else's to wait for: once it ended, the rest is left
// to the first process of the system.
func reapOrphans(main int) {
	for {
		// The process, in a siginfo of 64 bits (sigaction(2)); 0 when none has ended.
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		pid := int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), 16)))
		if err != nil || pid == 0 || pid == main {
			return
		}
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}
