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
		return fmt.Errorf("name %s is %w: use 1 to 63 lower-case letters, digits and dashes, beginning with a letter and not ending with a dash", Quote(name), ErrInvalid)
	}
	return nil
}

// CheckLabel tells whether a checkpoint may be called so.
func CheckLabel(label string) error {
	if !labelRule.MatchString(label) {
		return fmt.Errorf("label %s is %w: use 1 to 63 letters, digits, dots, underscores and dashes, beginning with a letter or digit", Quote(label), ErrInvalid)
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
			return fmt.Errorf("env: the variable name %s is %w: use letters, digits and underscores, not beginning with a digit", Quote(key), ErrInvalid)
		case strings.HasPrefix(key, reservedEnv):
			return fmt.Errorf("env: the variable name %s is %w: names that begin with %s are set by Pixels itself; choose another", Quote(key), ErrInvalid, reservedEnv)
		case strings.ContainsRune(value, 0):
			return fmt.Errorf("env: the value of %s is %w: it has a NUL byte", key, ErrInvalid)
		case len(value) > maxEnvValue:
			return fmt.Errorf("env: the value of %s is %w: it has %d bytes, of %d allowed; write it to a file inside", Quote(key), ErrInvalid, len(value), maxEnvValue)
		case size > maxEnv:
			return fmt.Errorf("env is %w: names and values have more than %d bytes together; write the long ones to a file inside", ErrInvalid, maxEnv)
		}
	}
	return nil
}

// CheckLabels looks at the labels that a sandbox is tagged with.
func CheckLabels(labels map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if !labelRule.MatchString(key) {
			return fmt.Errorf("labels: the key %s is %w: use up to 63 letters, digits, dots, underscores and dashes, beginning with a letter or digit", Quote(key), ErrInvalid)
		}
		if len(labels[key]) > 255 || !plain.Harmless(labels[key]) {
			return fmt.Errorf("labels: the value of %s is %w: use one line of up to 255 bytes, without control characters and those that hide or turn text", key, ErrInvalid)
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
