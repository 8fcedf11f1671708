//go:build !linux

package app

import (
	"context"
	"runtime"

	"pixels/internal/config"
	"pixels/internal/fault"
	"pixels/sandbox"
)

// OpenBackend says that there is none: sandboxes need Linux.
func OpenBackend(config.Config) (sandbox.Backend, error) {
	return nil, fault.Errorf(fault.Invalid, fault.Hint{}, "sandboxes run on Linux, and this is %s: name a server there with --server ADDRESS (or PIXELS_SERVER)", runtime.GOOS)
}

func ensureHostRules(context.Context, config.Config) error { return nil }
