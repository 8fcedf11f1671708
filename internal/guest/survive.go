package guest

import (
	"os"
	"runtime"
	"strconv"
	"sync"
)

// What keeps a sandbox alive when a command in it takes all of its memory or of its processes: the first process is neither what the kernel
// ends then, nor ends by itself for a thread that it can't have.

// commandScore is what commands have in /proc/PID/oom_score_adj, which their children inherit. Of what is small, as a fork bomb, the first
// process would else be the largest. On a machine without memory it has the commands of sandboxes end before its own programs, too.
const commandScore = 500

// asCommand begins a process that is to end before the first one where memory is short. A program of ours begins one at a time.
func asCommand(begin func() error) error {
	const mine = "/proc/self/oom_score_adj"
	if was, err := os.ReadFile(mine); err == nil { // else it begins all the same
		_ = os.WriteFile(mine, []byte(strconv.Itoa(commandScore)), 0)
		defer func() { _ = os.WriteFile(mine, was, 0) }()
	}
	return begin()
}

// spareThreads are more than the first process ever needs at once. The Go runtime keeps those that it has, and ends the program where it
// can't have another one.
const spareThreads = 8

// holdThreads makes all the threads that the first process needs.
func holdThreads() {
	runtime.GOMAXPROCS(1) // it has little to do, and for each more it may want more of them
	var all sync.WaitGroup
	all.Add(spareThreads)
	for range spareThreads {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait() // so that none serves two
		}()
	}
	all.Wait()
}
