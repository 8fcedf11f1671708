// Package fault has errors as values: what is wrong, with what, and what mends it. The one who shows an error words the last,
// because an agent, a human at a terminal and one at the page do different things.
package fault

import (
	"fmt"
)

// Kind is what a caller tells apart. errors.Is finds it in an error.
type Kind string

// Error implements error.
func (k Kind) Error() string { return string(k) }

// The kinds of errors.
const (
	NotFound    Kind = "not found"
	Exists      Kind = "already exists"
	Invalid     Kind = "invalid"
	State       Kind = "wrong state"
	Changed     Kind = "changed meanwhile"
	Unsupported Kind = "not supported"
	Denied      Kind = "denied by the policy"
	Unavailable Kind = "unavailable" // the backend can't be reached; no request was carried out
	Failed      Kind = "failed"      // a fault of the backend or the host, which nobody but its operator can mend
)

// Error is why something failed.
type Error struct {
	Kind    Kind
	Subject string // what it is about: sandbox "box"
	Problem string // what is wrong with it; empty where the kind says it
	Hint    Hint   // what mends it
	Cause   error  // for the operator: it may have paths of the host, and words of others
}

// Error implements error. It has neither the hint nor the cause.
func (e *Error) Error() string {
	problem := e.Problem
	if problem == "" {
		problem = string(e.Kind)
	}
	if e.Subject == "" {
		return problem
	}
	return e.Subject + " " + problem
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// New returns an error. subject and problem are as in Error.
func New(kind Kind, subject, problem string, hint Hint) *Error {
	return &Error{Kind: kind, Subject: subject, Problem: problem, Hint: hint}
}

// About returns an error without a hint, whose problem is a format with its values.
func About(kind Kind, subject, problem string, args ...any) *Error {
	return &Error{Kind: kind, Subject: subject, Problem: fmt.Sprintf(problem, args...)}
}

// Sandbox names a sandbox as a subject.
func Sandbox(name string) string { return fmt.Sprintf("sandbox %q", name) }

// Errorf returns an error whose text is a sentence.
func Errorf(kind Kind, hint Hint, format string, args ...any) *Error {
	return &Error{Kind: kind, Problem: fmt.Sprintf(format, args...), Hint: hint}
}

// Cause returns what the operator is to know of an error, and nobody else: nil where it hides nothing.
func Cause(err error) error {
	if e, ok := err.(*Error); ok && e.Cause != nil {
		return e.Cause
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if cause := Cause(one); cause != nil {
				return cause
			}
		}
	case interface{ Unwrap() error }:
		return Cause(e.Unwrap())
	}
	return nil
}

// With adds to an error what mends it.
func With(err error, hint Hint) error { return &hinted{err, hint} }

type hinted struct {
	error
	hint Hint
}

func (h *hinted) Unwrap() error { return h.error }

// Hints returns those of all errors in a tree, those of what wraps before those of what is wrapped.
func Hints(err error) (out []Hint) {
	switch e := err.(type) {
	case nil:
		return nil
	case *Error:
		out = append(out, e.Hint)
	case *hinted:
		out = append(out, e.hint)
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			out = append(out, Hints(one)...)
		}
	case interface{ Unwrap() error }:
		out = append(out, Hints(e.Unwrap())...)
	}
	return out
}
