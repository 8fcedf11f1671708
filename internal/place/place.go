// Package place finds where an installation has its configuration and its state. They are the same for all programs of a user,
// however little environment a client gives the server that it starts.
package place

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// database is the file of records and requests, below the folder for state.
var database = filepath.Join("pixels", "pixels.db")

// Home is the user's home of the passwd entry, whatever HOME says; where there is no entry, HOME (on Windows USERPROFILE).
func Home() (string, error) {
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil && filepath.IsAbs(u.HomeDir) {
		return u.HomeDir, nil
	}
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		return home, nil
	}
	return "", errors.New("this user has no entry in passwd, and HOME is not set: set XDG_CONFIG_HOME and XDG_STATE_HOME")
}

func below(variable string, elements ...string) (string, error) {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := Home()
	return filepath.Join(append([]string{home}, elements...)...), err
}

// Config is the folder for the configuration: pixels in XDG_CONFIG_HOME, or in ~/.config.
func Config() (string, error) {
	dir, err := below("XDG_CONFIG_HOME", ".config")
	if err != nil {
		return "", fmt.Errorf("find the configuration: %w", err)
	}
	return filepath.Join(dir, "pixels"), nil
}

// Database is the file of records and requests: in pixels in XDG_STATE_HOME, or in ~/.local/state.
func Database() (string, error) {
	dir, err := below("XDG_STATE_HOME", ".local", "state")
	if err != nil {
		return "", fmt.Errorf("find where state is kept: %w", err)
	}
	return filepath.Join(dir, database), nil
}

// Others are databases that other programs of this user have open, and those at the places where one may be, but for mine.
// Those of other users can't be seen.
func Others(mine string) (out []string) {
	add := func(path string) {
		if path == mine || slices.Contains(out, path) {
			return
		}
		a, err := os.Stat(path)
		if err != nil {
			return
		}
		if b, err := os.Stat(mine); err == nil && os.SameFile(a, b) {
			return
		}
		out = append(out, path)
	}
	if home, err := Home(); err == nil {
		add(filepath.Join(home, ".local", "state", database))
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		add(filepath.Join(home, ".local", "state", database))
	}
	open, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range open {
		if path, err := os.Readlink(fd); err == nil && strings.HasSuffix(path, string(filepath.Separator)+database) {
			add(path)
		}
	}
	return out
}
