package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Variables that must be kept nowhere are no part of what a command is started with: whoever lists the processes of the host would see
// them there. They come by the stdin of `keep`, lie in a file in memory for a moment, and are read and removed by what starts the
// command.

const unkeptDir = "/run/pixels/env"

// unkeptFor is how long a file waits at most to be read.
const unkeptFor = time.Minute

func unkeptPath(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "/.") {
		return "", fmt.Errorf("%q names no variables", name)
	}
	return filepath.Join(unkeptDir, name), nil
}

// runKeep keeps variables, a JSON object, under a name.
func runKeep(args []string, in io.Reader) error {
	if len(args) != 1 {
		return errors.New("keep wants a name")
	}
	path, err := unkeptPath(args[0])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(unkeptDir, 0o700); err != nil {
		return err
	}
	if old, err := os.ReadDir(unkeptDir); err == nil {
		for _, e := range old {
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > unkeptFor {
				_ = os.Remove(filepath.Join(unkeptDir, e.Name())) // what was to read it has ended
			}
		}
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// takeUnkept adds variables that were kept under a name to the environment of this process, and of all that it starts.
func takeUnkept(name string) error {
	if name == "" {
		return nil
	}
	path, err := unkeptPath(name)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	env := map[string]string{}
	if err := json.Unmarshal(b, &env); err != nil {
		return err
	}
	for name, value := range env {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}
