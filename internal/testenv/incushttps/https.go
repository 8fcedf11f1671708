// Package incushttps has the Incus of this machine answer by HTTPS for a test.
package incushttps

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"
	localtls "github.com/lxc/incus/v6/shared/tls"
)

// For is the key of Incus with the name of the test for which it answers on a port.
const For = "user.pixels-test"

// Access is how Incus is reached.
type Access struct {
	Address                           string // host and port
	ClientCert, ClientKey, ServerCert string // files
}

// Open has Incus answer on a port of the loopback, and trust a certificate, until the test ends. name is the test's own in all of Incus.
func Open(t testing.TB, server client.InstanceServer, name string) Access {
	t.Helper()
	state, etag, err := server.GetServer()
	if err != nil {
		t.Fatal(err)
	}
	a := Access{Address: state.Config["core.https_address"]}
	if a.Address == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		a.Address = l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		put := state.Writable()
		put.Config["core.https_address"], put.Config[For] = a.Address, name
		if err := server.UpdateServer(put, etag); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			state, etag, err := server.GetServer()
			if err == nil {
				err = Close(server, state.Writable(), etag)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	_, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		t.Fatal(err)
	}
	a.Address = net.JoinHostPort("127.0.0.1", port)
	cert, key, fingerprint := Trust(t, server, name)
	t.Cleanup(func() {
		if err := server.DeleteCertificate(fingerprint); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	for path, f := range map[*string]struct {
		name    string
		content []byte
	}{&a.ClientCert: {"client.crt", cert}, &a.ClientKey: {"client.key", key}, &a.ServerCert: {"server.crt", []byte(state.Environment.Certificate)}} {
		*path = filepath.Join(dir, f.name)
		if err := os.WriteFile(*path, f.content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// Close ends what Open began.
func Close(server client.InstanceServer, put api.ServerPut, etag string) error {
	put.Config["core.https_address"], put.Config[For] = "", "" // Incus keeps a user key that is only left out
	if err := server.UpdateServer(put, etag); err != nil {
		return fmt.Errorf("have Incus answer by HTTPS no more: %w", err)
	}
	return nil
}

// Trust makes a client's certificate that Incus trusts, and returns it, its key and its fingerprint.
func Trust(t testing.TB, server client.InstanceServer, name string) (cert, key []byte, fingerprint string) {
	t.Helper()
	cert, key, err := localtls.GenerateMemCert(true, false)
	if err != nil {
		t.Fatal(err)
	}
	if fingerprint, err = localtls.CertFingerprintStr(string(cert)); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(cert)
	err = server.CreateCertificate(api.CertificatesPost{
		CertificatePut: api.CertificatePut{Name: name, Type: api.CertificateTypeClient, Certificate: base64.StdEncoding.EncodeToString(block.Bytes)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, fingerprint
}
