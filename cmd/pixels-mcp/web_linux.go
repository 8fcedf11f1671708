package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"pixels/internal/place"
	"pixels/internal/web"
	"pixels/sandbox/manager"
)

func (a *cli) webCommand() *cobra.Command {
	var address string
	var names []string
	token := false
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Serve the page on which you decide what agents may reach",
		Long: "web serves a page with what agents ask for and were granted, all sandboxes, and the record. It has a token of\n" +
			"its own, which it prints: keep it from agents. While the page is open in a browser, blocked connections wait for\n" +
			"your answer.\n" +
			"It is for this machine; to reach it from another one, put a server with TLS before it and name it with --name.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.notBesideService(); err != nil {
				return err
			}
			secret, err := webToken()
			if err != nil {
				return err
			}
			if token {
				_, err := fmt.Fprintln(a.out, secret)
				return err
			}
			listener, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("serve the page: %w; give another --addr", err)
			}
			defer listener.Close()
			log := logger(a.err)
			return a.withHuman(func(m *manager.Human) error {
				s, err := web.New(m, secret, names, func(err error) { log.Warn().Err(err).Msg("web") })
				if err != nil {
					return err
				}
				a.sayWhere()
				fmt.Fprintf(a.out, "page:  http://%s/\ntoken: %s\n", listener.Addr(), secret)
				return s.Serve(cmd.Context(), listener)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "addr", "127.0.0.1:7467", "`address` to listen on")
	f.StringSliceVar(&names, "name", nil, "host `name`, with its port, that browsers may call the page by besides; can be repeated")
	f.BoolVar(&token, "token", false, "print the token and end")
	return cmd
}

// webToken is the token of the page, which is made when it is asked for first.
func webToken() (string, error) { return secretOf("web") }

func tokenFile(store, what string) string { return filepath.Join(filepath.Dir(store), what+"-token") }

// secretOf is the token of something that is served beside MCP, which is made when it is asked for first.
func secretOf(what string) (string, error) {
	store, err := place.Database()
	if err != nil {
		return "", err
	}
	path := tokenFile(store, what)
	b, err := os.ReadFile(path)
	if err == nil {
		if secret := strings.TrimSpace(string(b)); len(secret) >= 20 {
			return secret, nil
		}
		return "", fmt.Errorf("the file %s has no token in it; remove it, and a new one is made", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the %s token: %w", what, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("keep the %s token: %w", what, err)
	}
	secret := strings.ToLower(rand.Text())
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the %s token: %w", what, err)
	}
	return secret, nil
}
