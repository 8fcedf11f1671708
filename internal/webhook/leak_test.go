package webhook

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	hookPause = time.Millisecond
	goleak.VerifyTestMain(m) // no goroutine outlives the tests
}
