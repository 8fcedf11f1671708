package fault

import (
	"errors"
	"fmt"
	"testing"
)

// The operator hears of what lies deepest, also where an error that hides nothing stands before it.
func TestTheCauseIsFound(t *testing.T) {
	cause := errors.New("/var/lib/x: no space")
	hides := &Error{Kind: Failed, Problem: "the host failed", Cause: cause}
	for _, err := range []error{
		hides, fmt.Errorf("exec: %w", hides), With(hides, Hint{Action: SetUp}), errors.Join(About(NotFound, "x", ""), hides),
		fmt.Errorf("%w (%w)", About(Unavailable, "", "Incus does not answer"), hides),
	} {
		if Cause(err) != cause {
			t.Errorf("of %v it is %v", err, Cause(err))
		}
	}
	for _, err := range []error{nil, errors.New("plain"), About(NotFound, "x", "")} {
		if Cause(err) != nil {
			t.Errorf("of %v it is %v", err, Cause(err))
		}
	}
}
