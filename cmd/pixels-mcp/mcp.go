package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"pixels/internal/program"
)

// mcpCommand serves by HTTP under the name, and with the flags, that it had in the first release.
func (a *cli) mcpCommand() *cobra.Command {
	var s serving
	pidFile, stateFile := "", ""
	cmd := &cobra.Command{
		Use:   "mcp",
		Short: "Serve MCP by HTTP, as serve --http does; with --server speak to such a server on stdin and stdout",
		Long: "mcp serves clients by HTTP, at 127.0.0.1:8765 unless --listen-addr says otherwise, as `" + program.Name + " serve --http` does. Each needs a\n" +
			"token: `" + program.Name + " token create NAME`.\n\n" +
			"With --server it passes on to such a server what an MCP client says on its stdin, for clients that speak nothing else.",
		Example: "  " + program.Name + " mcp --listen-addr 127.0.0.1:8765\n  " + program.Name + " mcp --server https://host:8765 --token-file ci.token --server-cert FINGERPRINT",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.server.url != "" {
				r, err := a.server.remote()
				if err != nil {
					return err
				}
				return r.Bridge(cmd.Context(), a.in, a.raw)
			}
			if stateFile != "" {
				fmt.Fprintln(a.err, "--state-file is not needed any more: all that is known of a sandbox is kept with it")
			}
			if pidFile != "" {
				if err := writePID(pidFile); err != nil {
					return err
				}
				defer os.Remove(pidFile)
			}
			return a.serve(cmd.Context(), s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.http.address, "listen-addr", "127.0.0.1:8765", "`address` to listen on")
	f.StringVar(&pidFile, "pid-file", "", "write the process's ID to a `file`, which is removed at the end")
	f.StringVar(&stateFile, "state-file", "", "not needed any more")
	_ = f.MarkHidden("state-file")
	s.http.flags(cmd)
	s.offered.flags(f)
	return cmd
}

// writePID writes a file with this process's ID, unless one names a process that lives.
func writePID(path string) error {
	if b, err := os.ReadFile(path); err == nil {
		if id, err := strconv.Atoi(string(b[:max(0, len(b)-1)])); err == nil && id != os.Getpid() {
			if _, err := os.Stat("/proc/" + strconv.Itoa(id)); err == nil {
				return usageError{fmt.Errorf("--pid-file %s: process %d is running; end it, or give another file", path, id)}
			}
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("--pid-file: %w", err)
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fmt.Errorf("--pid-file: %w", err)
	}
	return nil
}
