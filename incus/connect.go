// Package incus runs sandboxes as Incus system containers. It is the only package that knows Incus types; what it
// offers is a sandbox.Backend and the few host-side steps (pool, bridge, image) that set-up needs. It decides no policy.
package incus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	client "github.com/lxc/incus/v6/client"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fault"
	"pixels/sandbox"
)

// DefaultSocket is where incusd listens when nothing says otherwise.
const DefaultSocket = "/var/lib/incus/unix.socket"

// ErrUnreachable means that no Incus answered at the configured place.
var ErrUnreachable = fmt.Errorf("%w: Incus does not answer", sandbox.ErrUnavailable)

// Config says which Incus to use and where in it sandboxes are kept.
type Config struct {
	Socket     string         // path of the local socket; empty means $INCUS_SOCKET, then DefaultSocket
	Remote     string         // https://host:port; when set, Socket is ignored
	ClientCert string         // file with the client certificate for Remote, PEM
	ClientKey  string         // file with its key, PEM
	ServerCert string         // file with the one server certificate that Remote may show, PEM
	Project    string         // empty means "default"
	Pool       string         // storage pool of sandboxes; empty means "pixels"
	Network    string         // managed bridge of the sandboxes' gateway; empty means "pixels"
	Image      string         // alias or fingerprint of the base image; empty means "pixels/base"
	Presets    egress.Presets // rules that modes bring along; nil means those of this program
	StrictECH  bool           // what the gateway that set-up makes is to do with an Encrypted Client Hello: refuse it

	place func(*gateway.Config) // edits what a gateway is told; for tests
	stock stock                 // of free wires; the zero value means usualStock; tests need fewer
	limit time.Duration         // of a call; 0 means callLimit; tests don't wait for so long
	cause func(error)           // is told each error with what it hides from users; for tests
}

// withDefaults fills the fields that were left empty.
func (c Config) withDefaults() Config {
	if c.Socket == "" {
		c.Socket = os.Getenv("INCUS_SOCKET")
	}
	if c.Socket == "" {
		c.Socket = DefaultSocket
	}
	for _, f := range []struct {
		field *string
		value string
	}{{&c.Project, "default"}, {&c.Pool, "pixels"}, {&c.Network, "pixels"}, {&c.Image, "pixels/base"}} {
		if *f.field == "" {
			*f.field = f.value
		}
	}
	if c.stock == (stock{}) {
		c.stock = usualStock
	}
	return c
}

// dial makes a client for the Incus of c, in its project. It makes no call: whether one answers shows the first. limit is
// how long one call may take.
func dial(c Config, limit time.Duration) (*daemon, error) {
	var made client.InstanceServer
	var err error
	if c.Remote == "" {
		made, err = client.ConnectIncusUnix(c.Socket, &client.ConnectionArgs{SkipGetServer: true, SkipGetEvents: true, UserAgent: "pixels"})
	} else {
		made, err = connectRemote(c)
	}
	if err != nil {
		return nil, c.unreachable(err)
	}
	return newDaemon(made, c.Project, limit)
}

// connect makes a client for set-up, and asks whether it may be used. The error wraps ErrUnreachable when nothing answers
// within five seconds.
func connect(ctx context.Context, c Config) (*daemon, error) {
	c = c.withDefaults()
	probe, cancel := context.WithTimeoutCause(ctx, 5*time.Second, noAnswer{5 * time.Second})
	defer cancel()
	where := c.Socket
	if c.Remote != "" {
		where = c.Remote
	}
	made, err := dial(c, setupLimit)
	if err != nil {
		return nil, err
	}
	if err := answers(probe, made); err != nil {
		if noRight(err) {
			return nil, fault.With(fmt.Errorf("%w: this user may not use Incus at %s: %w", sandbox.ErrUnavailable, where, err), fault.Hint{Action: fault.JoinIncus})
		}
		return nil, fault.With(fmt.Errorf("%w at %s: %w", ErrUnreachable, where, err), fault.Hint{Action: fault.LookAtIncus})
	}
	return made, nil
}

// connectRemote opens an HTTPS client that shows the client certificate and accepts exactly the pinned server certificate.
func connectRemote(c Config) (client.InstanceServer, error) {
	pem := func(path, what string) (string, error) {
		if path == "" {
			return "", fmt.Errorf("incus.%s is not set, and a remote Incus needs it", what)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("incus.%s: %w", what, err)
		}
		return string(b), nil
	}
	cert, err := pem(c.ClientCert, "client_cert")
	if err != nil {
		return nil, err
	}
	key, err := pem(c.ClientKey, "client_key")
	if err != nil {
		return nil, err
	}
	server, err := pem(c.ServerCert, "server_cert")
	if err != nil {
		return nil, err
	}
	return client.ConnectIncus(c.Remote, &client.ConnectionArgs{
		TLSClientCert: cert, TLSClientKey: key, TLSServerCert: server,
		SkipGetServer: true, SkipGetEvents: true, UserAgent: "pixels",
	})
}

// answers asks the server who it is, and that it trusts us.
func answers(ctx context.Context, server *daemon) error {
	s, _, err := server.with(ctx).GetServer()
	if err != nil {
		return err
	}
	if s.Auth != "trusted" {
		return fault.With(errors.New("it answers but does not trust this client"), fault.Hint{Action: fault.TrustClient})
	}
	return nil
}
