//go:build !linux

package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"pixels/internal/program"
)

// ofThisMachine are the commands that a server has, each of which says that this is none: sandboxes need Linux.
func (a *cli) ofThisMachine() (decide, host []*cobra.Command) {
	for _, name := range []string{"setup", "doctor", "clean", "serve", "demo", "policy", "approval", "web", "token"} {
		host = append(host, &cobra.Command{
			Use: name, Hidden: true, DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), serving{}) },
		})
	}
	return nil, host
}

// serviceOf tells that there is no service.
func serviceOf(string) bool { return false }

// serving are the flags of a server, which a client's files may have.
type serving struct {
	http    overHTTP
	offered offered
}

// serve refuses.
func (a *cli) serve(context.Context, serving) error {
	return usageError{fmt.Errorf("sandboxes run on Linux, and this is %s: do this on the machine of the server, and name that here, as `%s --server https://host:8765 --token-file FILE list` or, for an MCP client, `%[2]s mcp --server ...`", runtime.GOOS, program.Name)}
}
