package manager

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// parallel bounds how many sandboxes one request makes or removes at once: more only get in each other's way.
const parallel = 8

// sideBySide calls do for 0 to n-1, up to limit at once, and returns when all have ended. What one panics with, it panics
// with, so that it ends the caller's call and no more.
func sideBySide(n, limit int, do func(i int)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var panicked any
	defer func() {
		if panicked != nil {
			panic(panicked)
		}
	}()
	slots := make(chan struct{}, limit)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			defer func() {
				if p := recover(); p != nil {
					mu.Lock()
					defer mu.Unlock()
					panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
				}
			}()
			do(i)
		})
	}
	wg.Wait()
}
