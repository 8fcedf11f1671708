package server

import (
	"fmt"
	"sync"
	"time"
)

// quietFor is how long a call says nothing before its client is told that it is under way: clients, and what lies between, give up on
// what is silent.
var quietFor = 8 * time.Second

// lively tells what a call tells, and that it is under way where it tells nothing. stop must be called at its end; nothing is told after.
func lively(tell func(message string)) (told func(message string), stop func()) {
	if tell == nil {
		return nil, func() {}
	}
	var mu sync.Mutex
	begun, over := time.Now(), false
	var quiet *time.Timer
	mu.Lock() // until it has its timer
	defer mu.Unlock()
	quiet = time.AfterFunc(quietFor, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			tell(fmt.Sprintf("under way for %d s", int(time.Since(begun).Seconds())))
			quiet.Reset(quietFor)
		}
	})
	told = func(message string) {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			tell(message)
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
