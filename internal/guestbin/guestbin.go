// Package guestbin carries the programs that run inside instances, built by make and embedded here: that of sandboxes
// (cmd/pixels-init) and that of the gateway (cmd/pixels-gateway).
package guestbin

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"path"
	"sync"

	"pixels/egress/gateway"
	"pixels/internal/guest"
	"pixels/internal/program"
)

//go:embed all:program
var files embed.FS

// errLacking is for builds without make.
var errLacking = errors.New("this build of " + program.Name + " lacks the programs that run in instances: build it with `make`")

// Content returns the program of sandboxes.
func Content() ([]byte, error) { return read("pixels-init") }

// Gateway returns the program of the gateway, and its version, which is a hash of it.
func Gateway() (content []byte, version string, err error) {
	if content, err = read("pixels-gateway"); err != nil {
		return nil, "", err
	}
	return content, gateway.Version(content), nil
}

func read(name string) ([]byte, error) {
	content, err := files.ReadFile("program/" + name)
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
