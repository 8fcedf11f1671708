package server

import (
	"fmt"
	"sync"
	"time"

	"pixels/tools"
)

// quietFor is how long a call says nothing before its client is told that it is under way: clients, and what lies between, give up on
// what is silent.
var quietFor = 8 * time.Second

// lively tells what a call tells, and that it is under way where it tells nothing. stop must be called at its end; nothing is told after.
func lively(tell tools.Progress) (told tools.Progress, stop func()) {
	if tell == nil {
		return nil, func() {}
	}
	var mu sync.Mutex
	begun, over, of := time.Now(), false, 0
	var quiet *time.Timer
	mu.Lock() // until it has its timer
	defer mu.Unlock()
	quiet = time.AfterFunc(quietFor, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			tell(fmt.Sprintf("under way for %d s", int(time.Since(begun).Seconds())), 0, of)
			quiet.Reset(quietFor)
		}
	})
	told = func(message string, done, total int) {
		mu.Lock()
		defer mu.Unlock()
		if of = max(of, total); !over {
			tell(message, done, total)
			quiet.Reset(quietFor)
		}
	}
	return told, func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		quiet.Stop()
	}
}
