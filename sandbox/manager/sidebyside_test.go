package manager

import (
	"strings"
	"sync/atomic"
	"testing"
)

// A panic beside a call is the call's, which whoever serves it recovers from; the others go on to their end.
func TestAPanicBesideACallIsTheCalls(t *testing.T) {
	var done atomic.Int32
	defer func() {
		if p := recover(); p == nil || !strings.Contains(p.(string), "the third") || done.Load() != 9 {
			t.Errorf("recovered %v after %d others", p, done.Load())
		}
	}()
	sideBySide(10, 2, func(i int) {
		if i == 3 {
			panic("the third")
		}
		done.Add(1)
	})
	t.Error("there was no panic")
}
