package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"pixels/internal/place"
	"pixels/internal/program"
	"pixels/internal/selfsigned"
	"pixels/internal/server"
)

// overHTTP is where and how clients are served by HTTP.
type overHTTP struct {
	address   string
	cert, key string
	names     []string
}

func (o *overHTTP) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.cert, "tls-cert", "", "certificate `file` (PEM) for HTTP; off this machine one is made where none is given")
	f.StringVar(&o.key, "tls-key", "", "key `file` of that certificate")
	f.StringSliceVar(&o.names, "name", nil, "host `name` by which clients call beside the address; can be repeated")
}

// hosts are the names that were given, without ports.
func (o *overHTTP) hosts() (out []string) {
	for _, name := range o.names {
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
		out = append(out, strings.ToLower(name))
	}
	return out
}

// check finds what is wrong about what was typed.
func (o *overHTTP) check() error {
	if (o.cert == "") != (o.key == "") {
		return usageError{errors.New("--tls-cert and --tls-key go together")}
	}
	if _, _, err := net.SplitHostPort(o.address); err != nil && o.address != "" && !strings.HasPrefix(o.address, "unix:") {
		return usageError{fmt.Errorf("%q is no address to serve HTTP on: give one with a port, as 127.0.0.1:8765, or unix:PATH", o.address)}
	}
	return nil
}

// listening is a listener, and what to tell of it.
type listening struct {
	net.Listener
	told []string
}

// listen listens: by plain HTTP on this machine alone, by HTTPS elsewhere.
func (o *overHTTP) listen() (*listening, error) {
	if path, ok := strings.CutPrefix(o.address, "unix:"); ok {
		l, err := server.ListenUnix(path, 0o600) // for this user alone
		if err != nil {
			return nil, err
		}
		return &listening{l, []string{"MCP:  unix:" + path + ", at /mcp"}}, nil
	}
	host, _, _ := net.SplitHostPort(o.address) // checked
	var config *tls.Config
	switch {
	case o.cert != "":
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, fmt.Errorf("the certificate for HTTP: %w", err)
		}
		config = secured(pair)
	case !thisMachine(host):
		pair, err := o.ownCertificate(host)
		if err != nil {
			return nil, err
		}
		config = secured(pair)
	}
	l, err := net.Listen("tcp", o.address)
	if err != nil {
		return nil, fmt.Errorf("serve by HTTP: %w; give another --http", err)
	}
	if config == nil {
		return &listening{l, []string{fmt.Sprintf("MCP:  http://%s/mcp", l.Addr()), "clients need a token: `" + program.Name + " token create NAME`"}}, nil
	}
	return &listening{tls.NewListener(l, config), []string{
		fmt.Sprintf("MCP:  https://%s/mcp", l.Addr()), "fingerprint of the certificate: " + selfsigned.Fingerprint(config.Certificates[0].Certificate[0]), "clients need a token: `" + program.Name + " token create NAME`",
	}}, nil
}

func secured(pair tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
}

// ownCertificate is made once, and kept beside the ledger.
func (o *overHTTP) ownCertificate(host string) (tls.Certificate, error) {
	store, err := place.Database()
	if err != nil {
		return tls.Certificate{}, err
	}
	names := append(o.hosts(), host, "localhost")
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	return selfsigned.Load(filepath.Dir(store), names)
}

// thisMachine tells whether a listener on a host is reached from this machine alone.
func thisMachine(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
