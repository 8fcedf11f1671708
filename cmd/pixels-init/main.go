// Command pixels-init is the first process of a sandbox. It is a program of its own, and not a part of pixels-mcp,
// because every sandbox runs one: it is 3.4 MB against 48, and starts with every command. The build embeds it in
// pixels-mcp, and set-up puts it into the base image.
package main

import (
	"os"

	"pixels/internal/guest"
)

func main() { os.Exit(guest.Main(os.Args)) }
