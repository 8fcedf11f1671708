package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"pixels/internal/fault"
	"pixels/internal/program"
	"pixels/internal/selfsigned"
	"pixels/internal/server"
)

// elsewhere is the server of another machine, which does what is asked for instead of this one.
type elsewhere struct {
	url, tokenFile, cert string
	typed                bool // rather than found in the environment
}

func (e *elsewhere) flags(root *cobra.Command) {
	p := root.PersistentFlags()
	p.StringVar(&e.url, "server", os.Getenv("PIXELS_SERVER"), "have the server at an `address` such as https://host:8765 do it (see serve --http)")
	p.StringVar(&e.tokenFile, "token-file", os.Getenv("PIXELS_TOKEN_FILE"), "`file` with the token for that server")
	p.StringVar(&e.cert, "server-cert", os.Getenv("PIXELS_SERVER_CERT"), "`fingerprint` of that server's certificate, which it prints when it starts")
}

// settle reads what was given; nothing is done yet.
func (e *elsewhere) settle(cmd *cobra.Command) error {
	e.typed = cmd.Flags().Changed("server")
	switch top := topOf(cmd); {
	case !e.typed, top.GroupID != "host" && top.GroupID != "decide":
	case top.Name() == "mcp", top.Name() == "requests", top.Name() == "audit", top.Name() == "network":
	default:
		return usageError{fmt.Errorf("`%s` works on the machine that it is called on: it takes no --server", cmd.CommandPath())}
	}
	if e.url == "" && (cmd.Flags().Changed("token-file") || cmd.Flags().Changed("server-cert")) {
		return usageError{errors.New("--token-file and --server-cert go with --server")}
	}
	return nil
}

// topOf is the command just below the program.
func topOf(cmd *cobra.Command) *cobra.Command {
	for cmd.HasParent() && cmd.Parent().HasParent() {
		cmd = cmd.Parent()
	}
	return cmd
}

// remote is that server.
func (e *elsewhere) remote() (server.Remote, error) {
	r := server.Remote{URL: e.url, Secret: os.Getenv("PIXELS_TOKEN")}
	if e.tokenFile != "" {
		b, err := os.ReadFile(e.tokenFile)
		if err != nil {
			return r, fmt.Errorf("--token-file: %w", err)
		}
		r.Secret = strings.TrimSpace(string(b))
	}
	if e.cert != "" {
		var err error
		if r.TLS, err = selfsigned.Pinned(e.cert); err != nil {
			return r, usageError{fmt.Errorf("--server-cert: %w", err)}
		}
	}
	if r.Secret == "" {
		return r, usageError{fmt.Errorf("--server wants a token: give --token-file FILE (or PIXELS_TOKEN) with what `%s token create NAME` prints there", program.Name)}
	}
	if err := r.Check(); errors.Is(err, fault.Invalid) {
		return r, usageError{err}
	}
	return r, nil
}
