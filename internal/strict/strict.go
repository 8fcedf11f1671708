// Package strict reads TOML that a human wrote: what is unknown or wrong is an error that names line and key.
package strict

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"pixels/internal/nearest"
)

// Error is what is wrong with a text, and in which line.
type Error struct {
	Line int // from 1; 0 when that is not known
	Err  error
}

// Error says the line first.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("line %d: %v", e.Line, e.Err)
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Decode reads a text over what into has. known are the keys that there may be, for a hint at a mistyped one. Errors are
// *Error.
func Decode(text string, into any, known []string) error {
	d := toml.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		first := unknown.Errors[0]
		row, _ := first.Position()
		key := strings.Join(first.Key(), ".")
		return &Error{row, fmt.Errorf("unknown key %s%s", key, nearest.Hint(key, known))}
	case errors.As(err, &bad):
		row, _ := bad.Position()
		if key := strings.Join(bad.Key(), "."); key != "" {
			return &Error{row, fmt.Errorf("%s: %w", key, bad)}
		}
		return &Error{row, bad}
	}
	n, line := lineOf(text, into, err)
	if line == "" {
		return &Error{0, err}
	}
	return &Error{n, fmt.Errorf("%s: %w", line, err)}
}

// lineOf finds the line of an error that go-toml gives without one, such as that of a number where a text is wanted: the
// last of the fewest lines that give the same.
func lineOf(text string, into any, want error) (n int, line string) {
	lines := strings.SplitAfter(text, "\n")
	for i := range lines {
		fresh := reflect.New(reflect.TypeOf(into).Elem()).Interface()
		if err := toml.Unmarshal([]byte(strings.Join(lines[:i+1], "")), fresh); err != nil && err.Error() == want.Error() {
			return i + 1, strings.TrimSpace(lines[i])
		}
	}
	return 0, ""
}
