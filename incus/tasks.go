package incus

import "sync"

// tasks is work in the background. Unlike a sync.WaitGroup it takes new work while someone waits.
type tasks struct {
	mu      sync.Mutex
	running int
	idle    sync.Cond
}

// Go does work in the background.
func (t *tasks) Go(do func()) {
	t.mu.Lock()
	t.running++
	t.mu.Unlock()
	go func() {
		defer func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.running--; t.running == 0 && t.idle.L != nil {
				t.idle.Broadcast()
			}
		}()
		do()
	}()
}

// Wait returns once no work is under way.
func (t *tasks) Wait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idle.L = &t.mu
	for t.running > 0 {
		t.idle.Wait()
	}
}
