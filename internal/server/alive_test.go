package server

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// A call that says nothing is told to be under way, again and again, and nothing is told once it is over.
func TestASilentCallIsToldToBeUnderWay(t *testing.T) {
	defer func(d time.Duration) { quietFor = d }(quietFor)
	if quietFor > 10*time.Second {
		t.Errorf("clients hear nothing for %v", quietFor)
	}
	quietFor = 50 * time.Millisecond
	var mu sync.Mutex
	var all []string
	tell, stop := lively(func(message string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, message)
	})
	tell("begun")
	time.Sleep(180 * time.Millisecond)
	stop()
	mu.Lock()
	told := len(all)
	if told < 2 || all[0] != "begun" || !strings.HasPrefix(all[1], "under way for ") {
		t.Errorf("%q", all)
	}
	mu.Unlock()
	tell("late")
	time.Sleep(120 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	if len(all) != told {
		t.Errorf("told after its end: %q", all[told:])
	}
	if tell, stop := lively(nil); tell != nil {
		t.Error("who asked for nothing is told")
	} else {
		stop()
	}
}
