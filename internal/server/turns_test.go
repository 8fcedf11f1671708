package server

import (
	"context"
	"errors"
	"testing"
)

// An owner has so many calls worked on at once, and may have so many wait; another one's go on beside them.
func TestNobodyTakesAllTurns(t *testing.T) {
	var all turns
	var ends []func()
	for range atOnce {
		done, err := all.take(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, done)
	}
	ctx, giveUp := context.WithCancel(context.Background())
	waiting := make(chan error, maxWaiting)
	for range maxWaiting {
		go func() {
			done, err := all.take(ctx, "one")
			if err == nil {
				done()
			}
			waiting <- err
		}()
	}
	for {
		all.mu.Lock()
		n := all.of["one"].count
		all.mu.Unlock()
		if n == atOnce+maxWaiting {
			break
		}
	}
	if _, err := all.take(t.Context(), "one"); !errors.Is(err, errTooMany) {
		t.Errorf("one more: %v", err)
	}
	if done, err := all.take(t.Context(), "two"); err != nil {
		t.Errorf("another owner: %v", err)
	} else {
		done()
	}
	ends[0]()
	if err := <-waiting; err != nil {
		t.Errorf("whose turn it is: %v", err)
	}
	giveUp()
	for range maxWaiting - 1 {
		<-waiting
	}
	for _, done := range ends[1:] {
		done()
	}
	if len(all.of) != 0 {
		t.Errorf("left is %v", all.of)
	}
}
