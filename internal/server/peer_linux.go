package server

import (
	"fmt"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// peer names the user at the other end of a connection (SO_PEERCRED, see unix(7)).
func peer(conn *net.UnixConn) (string, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return "", err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return "", err
	}
	if failed != nil {
		return "", fmt.Errorf("who connected can't be told: %w", failed)
	}
	id := strconv.Itoa(int(cred.Uid))
	u, err := user.LookupId(id)
	if err != nil {
		return "uid-" + id, nil
	}
	return u.Username, nil
}
