// Package guestbin carries the program that runs inside sandboxes (cmd/pixels-init), built by make and embedded here.
package guestbin

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"path"
	"sync"

	"pixels/internal/guest"
)

//go:embed all:program
var files embed.FS

// errLacking is for builds without make.
var errLacking = errors.New("this build of pixels-mcp lacks the program that runs in sandboxes: build it with `make`")

// Content returns the program.
func Content() ([]byte, error) {
	content, err := files.ReadFile("program/pixels-init")
	if err != nil {
		return nil, errLacking
	}
	return content, nil
}

// Path returns where the program lies in a sandbox. The path has its hash: a sandbox of an older image, which lacks it,
// gets it beside the one that it has.
func Path() (string, error) {
	at := where()
	if at == "" {
		return "", errLacking
	}
	return at, nil
}

var where = sync.OnceValue(func() string {
	content, err := Content()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(content)
	return path.Join(guest.Dir, "pixels-init-"+hex.EncodeToString(sum[:6]))
})
