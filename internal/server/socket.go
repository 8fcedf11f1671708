package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"pixels/tools"
)

// Socket is where the service listens, unless it is told otherwise.
const Socket = "/run/pixels/pixels.sock"

// ServeSocket serves each connection to a Unix socket, for the user at its other end: the kernel says who that
// is, so that nobody can be another. A connection whose first byte begins a request of HTTP is given to streams, with the user in the
// request's context (see Owner); all others speak MCP. It returns when ctx has ended and every call has come to its end.
func ServeSocket(ctx context.Context, path, version string, base tools.Session, streams http.Handler, log zerolog.Logger) error {
	listener, err := ListenUnix(path, 0o660) // for the group of its folder
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	var serving sync.WaitGroup
	defer serving.Wait()
	web := newHTTPSide(ctx, streams, log)
	defer web.close()
	for {
		conn, err := listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve on %s: %w", path, err)
		}
		serving.Go(func() {
			owner, err := peer(conn)
			if err != nil {
				log.Warn().Err(err).Msg("connection")
				_ = conn.Close()
				return
			}
			stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
			client := userConn{conn, bufio.NewReader(conn), owner}
			isHTTP := client.speaksHTTP()
			stop()
			if isHTTP {
				web.serve(client)
				return
			}
			defer conn.Close()
			// A client that reads nothing must not hold up the end.
			defer context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Now().Add(closeTime)) })()
			log.Info().Str("owner", owner).Msg("session begins")
			if err := New(version, base, log).Serve(WithOwner(ctx, owner), client, conn); err != nil && ctx.Err() == nil {
				log.Warn().Str("owner", owner).Err(err).Msg("session")
			}
		})
	}
}

// ListenUnix listens on a socket, which its permissions open. One that a killed server left is replaced; one that answers is not, nor is
// a file of another kind.
func ListenUnix(path string, mode os.FileMode) (*net.UnixListener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("another server answers on %s already", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("serve on %s: there is a file that is no socket", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("serve on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("serve on %s: %w", path, err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("serve on a socket: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// DialSocket connects to the service on a Unix socket.
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("the service on %s is not open to this user: root adds users with `usermod -aG GROUP USER`, where `ls -l %s` shows the group; then sign in anew", path, path)
	}
	if err != nil {
		return nil, fmt.Errorf("reach the service: %w", err)
	}
	return conn, nil
}

// Dial opens a session with the service on a Unix socket.
func Dial(ctx context.Context, path string) (*Client, error) {
	conn, err := DialSocket(ctx, path)
	if err != nil {
		return nil, err
	}
	c, err := Connect(ctx, quiet{conn}, conn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a session with the service: %w", err), conn.Close())
	}
	return c, nil
}

// quiet is a connection whose closing is an end: the SDK's client logs what else ends it, to stderr.
type quiet struct{ net.Conn }

func (q quiet) Read(b []byte) (int, error) {
	n, err := q.Conn.Read(b)
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

// BridgeSocket joins stdin and stdout to the service's socket, until either ends. It decides and keeps nothing.
func BridgeSocket(ctx context.Context, path string, in io.Reader, out io.Writer) error {
	conn, err := DialSocket(ctx, path)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() {
		_, _ = io.Copy(conn, in)
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(out, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
