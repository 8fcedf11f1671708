package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// Policy is the policy in force: that of a file, read anew when it changes.
type Policy struct {
	path string
	// Bad hears of a file that can't be read, once for each change of it; nil when nobody listens.
	Bad func(error)

	mu   sync.Mutex
	set  *Set
	seen os.FileInfo // of the file as it was read last; nil while there was none
}

// ErrFile is what every error about the file is.
var ErrFile = errors.New("the policy")

// Shipped is the policy of a machine where nobody wrote one.
func Shipped() *Policy {
	p, err := Fixed("")
	if err != nil {
		panic(err) // its own text, and a test reads it
	}
	return p
}

// Fixed is a policy that has no file.
func Fixed(text string) (*Policy, error) {
	set, err := Parse(text)
	if err != nil {
		return nil, err
	}
	return &Policy{set: set}, nil
}

// Open reads the policy at path. Where there is no file the defaults are in force, until there is one; an empty path is
// the same for good. A file that can't be read is an error, which names file, line and key.
func Open(path string) (*Policy, error) {
	p := Shipped()
	p.path = path
	if path == "" {
		return p, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		p.seen = info
		p.set, err = read(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrFile, path, err)
	}
	return p, nil
}

func read(path string) (*Set, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(string(b))
}

// Now returns the policy in force. A file that went bad, or away, since it was read leaves what was read last in force.
func (p *Policy) Now() *Set {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.path == "" {
		return p.set
	}
	info, err := os.Stat(p.path)
	if err != nil {
		info = nil
	}
	if same(info, p.seen) {
		return p.set
	}
	p.seen = info
	var set *Set
	if err == nil {
		set, err = read(p.path)
	}
	if err == nil {
		p.set = set
	} else if p.Bad != nil {
		p.Bad(fmt.Errorf("%w %s: %w; what was read before stays in force", ErrFile, p.path, err))
	}
	return p.set
}

// same tells whether a file is as it was.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// Vet decides about a call by the policy in force.
func (p *Policy) Vet(c Call) (Verdict, error) { return p.Now().Vet(c) }
