package testenv

import (
	"errors"
	"testing"
)

// stub takes how a test ends.
type stub struct {
	testing.TB
	ended string
}

func (*stub) Helper()                 {}
func (s *stub) Skipf(string, ...any)  { s.ended = "skipped" }
func (s *stub) Fatalf(string, ...any) { s.ended = "failed"; panic(s) }

func TestWhereIncusMustBeThereItsAbsenceIsAFailure(t *testing.T) {
	for value, want := range map[string]string{"": "skipped", "0": "skipped", "1": "failed"} {
		t.Setenv(Incus, value)
		s := &stub{}
		func() {
			defer func() { _ = recover() }()
			NoIncus(s, errors.New("connection refused"))
		}()
		if s.ended != want {
			t.Errorf("%s=%q: %s, want %s", Incus, value, s.ended, want)
		}
	}
}
