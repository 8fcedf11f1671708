package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// until connects to a name by TLS, again and again, and prints when it first could, in nanoseconds of the machine's clock.
func until(address, name string) (string, error) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		conn, err := net.DialTimeout("tcp4", address, time.Second)
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		err = tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
		_ = conn.Close()
		if err == nil {
			return fmt.Sprint(time.Now().UnixNano()), nil
		}
	}
	return "", fmt.Errorf("never")
}

// answers asks for names and prints the 95th percentile of the time until the answer, in nanoseconds.
func answers(count string) (string, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	var took []time.Duration
	for i := range n {
		start := time.Now()
		if _, err := exchange("169.254.1.1:53", "udp4", "A", fmt.Sprintf("host%d.example.com", i)); err != nil {
			return "", err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return fmt.Sprint(int64(took[n*95/100])), nil
}

// download gets a path by HTTP, on port 443 within TLS, or as many bytes as the path says when there is no host. It prints how
// long that took, in nanoseconds.
func download(address, host, path string) (string, error) {
	address, err := resolve(address)
	if err != nil {
		return "", err
	}
	start := time.Now()
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if strings.HasSuffix(address, ":443") {
		conn = tls.Client(conn, &tls.Config{ServerName: host, InsecureSkipVerify: true})
	}
	if host == "" {
		path = "\x00" + path + "\n"
		_, err = io.WriteString(conn, path)
	} else {
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
	}
	if err != nil {
		return "", err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, conn, make([]byte, 1<<18))
	if err == nil && n < 1<<20 {
		err = fmt.Errorf("it has %d bytes", n)
	}
	return fmt.Sprint(int64(time.Since(start))), err
}
