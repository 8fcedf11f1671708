// Package selfsigned makes a certificate for a server that has none, and lets a client pin it by its fingerprint.
package selfsigned

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lasts is how long a certificate is good: who pins it looks at no authority that could renew it.
const lasts = 10 * 365 * 24 * time.Hour

// Load reads the certificate and the key that are kept in a folder, and makes them where there are none. names are those of the server.
func Load(folder string, names []string) (tls.Certificate, error) {
	path := filepath.Join(folder, "http.pem")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = create(names); err != nil {
			return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
		}
		if err = os.MkdirAll(folder, 0o700); err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the certificate of this server: %w", err)
	}
	cert, err := tls.X509KeyPair(b, b)
	if err != nil {
		return cert, fmt.Errorf("the certificate in %s: %w; remove it, and a new one is made", path, err)
	}
	return cert, nil
}

// create makes a key and a certificate, both as PEM.
func create(names []string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "pixels"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lasts),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if name != "" {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

// Fingerprint is the SHA-256 of a certificate in hexadecimal.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Pinned is how a client connects to the one server whose certificate has a fingerprint, whatever names it has. Colons and the case
// of letters don't matter.
func Pinned(fingerprint string) (*tls.Config, error) {
	want := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(fingerprint), ":", ""))
	if b, err := hex.DecodeString(want); err != nil || len(b) != sha256.Size {
		return nil, fmt.Errorf("%q is no fingerprint: give the SHA-256 that the server prints when it starts, 64 hexadecimal digits", fingerprint)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection does it: by the certificate itself, which no authority signed
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errors.New("the server shows no certificate")
			}
			if got := Fingerprint(state.PeerCertificates[0].Raw); got != want {
				return fmt.Errorf("the server's certificate has the fingerprint %s, and not the one that was given: it is another server, or has a new certificate", got)
			}
			return nil
		},
	}, nil
}
