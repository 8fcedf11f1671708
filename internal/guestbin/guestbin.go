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

// Program returns the program, and the path at which it lies in a sandbox. The path has its hash: a sandbox of an older
// image, which lacks it, gets it beside the one that it has.
func Program() (content []byte, at string, err error) {
	content, err = files.ReadFile("program/pixels-init")
	if err != nil {
		return nil, "", errors.New("this build of pixels-mcp lacks the program that runs in sandboxes: build it with `make`")
	}
	return content, where(), nil
}

var where = sync.OnceValue(func() string {
	content, _ := files.ReadFile("program/pixels-init") // Program looked
	sum := sha256.Sum256(content)
	return path.Join(guest.Dir, "pixels-init-"+hex.EncodeToString(sum[:6]))
})
