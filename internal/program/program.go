// Package program knows by which name this program was called, so that what it tells people to type is what they typed.
package program

import (
	"os"
	"path/filepath"
	"strings"
)

// The names that it answers to: that of the MCP server, and a short one for people.
const (
	Server = "pixels-mcp"
	Short  = "pixels"
)

// Name is the name by which this process was started.
var Name = of(os.Args[0])

// of returns the name for a path: any but the short one is the server's.
func of(path string) string {
	if strings.TrimSuffix(filepath.Base(path), ".exe") == Short {
		return Short
	}
	return Server
}
