// Command pixels-gateway is the first process of the gateway's instance. It is a program of its own, and not a part of
// pixels-mcp, because it stands where sandboxes can talk to it: it holds what that takes and nothing else. The build
// embeds it in pixels-mcp, and set-up makes an image of it. `pixels-mcp gateway` runs the same by hand.
package main

import (
	"os"

	"pixels/egress/gateway"
)

func main() { os.Exit(gateway.Main(os.Args)) }
