package sandbox

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"pixels/internal/fault"
	"pixels/internal/plain"
)

var (
	// A name becomes a host name: RFC 1123 allows 63 characters of it.
	nameRule  = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	labelRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	envRule   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// CheckName tells whether a sandbox may be called so.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return fault.About(ErrInvalid, fmt.Sprintf("name %s", Quote(name)), "is invalid: use 1 to 63 lower-case letters, digits and dashes, beginning with a letter and not ending with a dash")
	}
	return nil
}

// CheckLabel tells whether a checkpoint may be called so.
func CheckLabel(label string) error {
	if !labelRule.MatchString(label) {
		return fault.About(ErrInvalid, fmt.Sprintf("label %s", Quote(label)), "is invalid: use 1 to 63 letters, digits, dots, underscores and dashes, beginning with a letter or digit")
	}
	return nil
}

// ParseSource splits NAME:LABEL, which names a checkpoint. NAME alone names a sandbox as it is now; label is then empty. NAME
// may be OWNER/NAME.
func ParseSource(source string) (name, label string, err error) {
	name, label, ok := strings.Cut(source, ":")
	if err := CheckName(name[strings.LastIndex(name, "/")+1:]); err != nil {
		return "", "", err
	}
	if ok {
		err = CheckLabel(label)
	}
	return name, label, err
}

// Bounds of an environment, in bytes.
const (
	maxEnvValue = 32 << 10
	maxEnv      = 256 << 10 // names and values of all variables
)

// reservedEnv begins the names of the variables that Pixels itself sets.
const reservedEnv = "PIXELS_"

// CheckEnv looks at environment variables: at their names, and for what no process could carry; ErrInvalid.
func CheckEnv(env map[string]string) error {
	size := 0
	for _, key := range slices.Sorted(maps.Keys(env)) {
		value := env[key]
		switch size += len(key) + len(value); {
		case !envRule.MatchString(key):
			return fault.About(ErrInvalid, fmt.Sprintf("env: the variable name %s", Quote(key)), "is invalid: use letters, digits and underscores, not beginning with a digit")
		case strings.HasPrefix(key, reservedEnv):
			return fault.About(ErrInvalid, fmt.Sprintf("env: the variable name %s", Quote(key)), "is invalid: names that begin with %s are set by Pixels itself; choose another", reservedEnv)
		case strings.ContainsRune(value, 0):
			return fault.About(ErrInvalid, fmt.Sprintf("env: the value of %s", key), "is invalid: it has a NUL byte")
		case len(value) > maxEnvValue:
			return fault.About(ErrInvalid, fmt.Sprintf("env: the value of %s", Quote(key)), "is invalid: it has %d bytes, of %d allowed; write it to a file inside", len(value), maxEnvValue)
		case size > maxEnv:
			return fault.About(ErrInvalid, "env", "is invalid: names and values have more than %d bytes together; write the long ones to a file inside", maxEnv)
		}
	}
	return nil
}

// CheckLabels looks at the labels that a sandbox is tagged with.
func CheckLabels(labels map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if !labelRule.MatchString(key) {
			return fault.About(ErrInvalid, fmt.Sprintf("labels: the key %s", Quote(key)), "is invalid: use up to 63 letters, digits, dots, underscores and dashes, beginning with a letter or digit")
		}
		if len(labels[key]) > 255 || !plain.Harmless(labels[key]) {
			return fault.About(ErrInvalid, fmt.Sprintf("labels: the value of %s", key), "is invalid: use one line of up to 255 bytes, without control characters and those that hide or turn text")
		}
	}
	return nil
}

// Shown is a name as texts show it: in quotes where it has what is no letter, such as a line feed, an escape, or a mark that
// turns the direction of writing. Names in a sandbox are its own.
func Shown(name string) string {
	if utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return name
	}
	return strconv.Quote(name)
}

// Quote shows a word that may be very long.
func Quote(word string) string {
	if len(word) > 80 {
		return fmt.Sprintf("%q... (%d bytes)", word[:80], len(word))
	}
	return fmt.Sprintf("%q", word)
}
