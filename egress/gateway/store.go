package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"pixels/egress"
)

// store keeps, for each wire, who is on it and with which policy: one small file each. A file is there whole or not at all.
type store struct{ dir string }

// kept is what is known of a wire: its sandbox, or that it had one.
type kept struct {
	Sandbox string        `json:"sandbox,omitempty"`
	Policy  egress.Policy `json:"policy,omitzero"`
	Mark    string        `json:"mark,omitempty"`
	Used    int           `json:"used,omitempty"` // index of the interface that is used up
}

func (s store) path(wire int) string {
	return filepath.Join(s.dir, wirePrefix+strconv.Itoa(wire)+".json")
}

func (s store) save(wire int, k kept) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	next := s.path(wire) + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		_ = os.Remove(next) // half a file takes room on a full disk
		return err
	}
	return os.Rename(next, s.path(wire))
}

func (s store) load(wire int) (k kept, ok bool, err error) {
	b, err := os.ReadFile(s.path(wire))
	if errors.Is(err, fs.ErrNotExist) {
		return k, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return kept{}, false, fmt.Errorf("%s: %w", s.path(wire), err)
	}
	return k, true, nil
}

func (s store) remove(wire int) error {
	if err := os.Remove(s.path(wire)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
