// Command pixels-gateway is the first process of the gateway's instance. It is a program of its own, and not a part of
// pixels-mcp, because it stands where sandboxes can talk to it: it holds what that takes and nothing else. The build
// embeds it in pixels-mcp, and set-up makes an image of it. `pixels-mcp gateway` runs the same by hand.
// With the argument "probe" it is what a canary runs inside a sandbox.
package main

import (
	"os"

	"pixels/egress/gateway"
	"pixels/internal/canary"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "probe" {
		os.Exit(canary.Main())
	}
	os.Exit(gateway.Main(os.Args))
}
