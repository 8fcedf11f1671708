package main

import (
	"os"
	"syscall"
)

// serviceOf tells whether there is a service's socket, of another user than this one.
func serviceOf(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) != os.Geteuid()
}
