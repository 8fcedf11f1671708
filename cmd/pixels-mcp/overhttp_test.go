package main

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixels/internal/selfsigned"
)

// Plain HTTP is spoken on this machine alone; elsewhere a certificate is made where none is given, which clients can pin.
func TestHTTPOffThisMachineIsSecured(t *testing.T) {
	for address, secured := range map[string]bool{"127.0.0.1:0": false, "localhost:0": false, "[::1]:0": false, "0.0.0.0:0": true, ":0": true, "[::]:0": true} {
		o := overHTTP{address: address, names: []string{"Pixels.example:443"}}
		if err := o.check(); err != nil {
			t.Fatal(err)
		}
		l, err := o.listen()
		if err != nil {
			if strings.Contains(address, "::1") {
				continue // a machine without IPv6
			}
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
		go func() { _ = server.Serve(l) }()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		told := strings.Join(l.told, "\n")
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", net.JoinHostPort("localhost", port), &tls.Config{InsecureSkipVerify: true})
		switch {
		case err == nil:
			cert := conn.ConnectionState().PeerCertificates[0]
			if !secured || !strings.Contains(told, selfsigned.Fingerprint(cert.Raw)) || !strings.Contains(told, "https://") || cert.VerifyHostname("pixels.example") != nil {
				t.Errorf("%s: TLS as %v, told %s", address, cert.DNSNames, told)
			}
			_ = conn.Close()
		case secured:
			t.Errorf("%s: %v", address, err)
		case !strings.Contains(told, "http://"):
			t.Errorf("%s: %s", address, told)
		}
		_ = server.Close()
	}
}

func TestHTTPOnASocketOfItsUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	o := overHTTP{address: "unix:" + path}
	for range 2 { // the second takes the place of one that was killed
		l, err := o.listen()
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		if _, err := o.listen(); err == nil || !strings.Contains(err.Error(), "answers") {
			t.Errorf("two at once: %v", err)
		}
		l.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
		_ = l.Close()
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.listen(); err == nil {
		t.Error("a file is replaced by a socket")
	}
	for _, bad := range []overHTTP{{address: "8765"}, {address: "127.0.0.1"}, {address: "127.0.0.1:0", cert: "x"}} {
		if err := bad.check(); !errors.As(err, &usageError{}) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
