package server

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// No goroutine outlives the tests, unless the program is a server for one of them.
func TestMain(m *testing.M) {
	if dir := os.Getenv(serving); dir != "" {
		if err := serveMemory(dir); err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}
