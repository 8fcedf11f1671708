package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// halfHello is the beginning of a ClientHello that would be as long as one may be.
func halfHello(n int) []byte {
	b := append([]byte{22, 3, 1, 0x3f, 0xff, 1, 0, 0xff, 0xff, 3, 3}, make([]byte, max(n, 11))...)
	return b[:max(n, 11)]
}

// open makes many connections that say something, whole or not, and keeps them for some seconds. It tells how many are
// still there then.
func open(address, kind, count, size, seconds string) (string, error) {
	address, err := resolve(address)
	if err != nil {
		return "", err
	}
	n, _ := strconv.Atoi(count)
	bytes, _ := strconv.Atoi(size)
	length, _ := strconv.ParseFloat(seconds, 64)
	var say []byte
	switch kind {
	case "hello":
		say = halfHello(bytes)
	case "head":
		say = append([]byte("GET / HTTP/1.1\r\nHost: allowed.example.com\r\nX: "), strings.Repeat("x", bytes)...)
	case "request":
		say = []byte("GET /slow HTTP/1.1\r\nHost: allowed.example.com\r\n\r\n")
	case "fetch": // of what nobody reads
		say = fmt.Appendf(nil, "\x00%d\n", bytes)
	case "push": // to who reads nothing
		say = append([]byte{0}, make([]byte, bytes)...)
	case "question":
		say = append([]byte{0xff, 0xff}, make([]byte, bytes)...)
	}
	var all sync.WaitGroup
	var alive, made atomic.Int64
	starting := make(chan struct{}, 200)
	until := time.Now().Add(time.Duration(length * float64(time.Second)))
	for range n {
		starting <- struct{}{}
		all.Go(func() {
			conn, err := net.DialTimeout("tcp4", address, 3*time.Second)
			<-starting
			if err != nil {
				return
			}
			made.Add(1)
			defer conn.Close()
			_ = conn.SetDeadline(until)
			over := make(chan bool, 1)
			if kind != "fetch" {
				go func() {
					_, err := io.Copy(io.Discard, conn)
					over <- err == nil || !timeout(err)
				}()
			}
			_, err = conn.Write(say)
			ended := err != nil && !timeout(err)
			if kind == "fetch" {
				time.Sleep(time.Until(until))
			} else if <-over {
				ended = true
			}
			if !ended {
				alive.Add(1)
			}
		})
	}
	all.Wait()
	return fmt.Sprintf("made %d alive %d", made.Load(), alive.Load()), nil
}

func timeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// leave connects again and again, says something and goes without waiting for the other end. It tells how many were let in.
func leave(address, count string) (string, error) {
	address, err := resolve(address)
	if err != nil {
		return "", err
	}
	n, _ := strconv.Atoi(count)
	in := 0
	for range n {
		conn, err := net.DialTimeout("tcp4", address, 3*time.Second)
		if err != nil {
			continue
		}
		if _, err := conn.Write([]byte("\x00x\n")); err == nil {
			in++
		}
		time.Sleep(time.Millisecond)
		_ = conn.Close()
	}
	return fmt.Sprintf("left %d", in), nil
}

// steady keeps a conversation with an echo server, and asks for names, for some seconds. It tells the longest that either
// took, and fails when one does.
func steady(address, seconds string) (string, error) {
	at, err := resolve(address)
	if err != nil {
		return "", err
	}
	length, _ := strconv.ParseFloat(seconds, 64)
	conn, err := net.DialTimeout("tcp4", at, 3*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	var slowest time.Duration
	turns := 0
	for until := time.Now().Add(time.Duration(length * float64(time.Second))); time.Now().Before(until); turns++ {
		began := time.Now()
		_ = conn.SetDeadline(began.Add(10 * time.Second))
		if _, err := fmt.Fprintf(conn, "\x00turn %d\n", turns); err != nil {
			return "", fmt.Errorf("turn %d: %w", turns, err)
		}
		if _, err := r.ReadString('\n'); err != nil {
			return "", fmt.Errorf("turn %d: %w", turns, err)
		}
		if _, err := exchange("169.254.1.1:53", "udp4", "A", fmt.Sprintf("turn-%d.example.com", turns)); err != nil {
			return "", fmt.Errorf("lookup %d: %w", turns, err)
		}
		slowest = max(slowest, time.Since(began))
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Sprintf("steady %d turns, the slowest %s", turns, slowest.Round(time.Millisecond)), nil
}

// lookups asks for names as fast as it can, for some seconds, by several at once.
func lookups(domain, seconds string) (string, error) {
	length, _ := strconv.ParseFloat(seconds, 64)
	until := time.Now().Add(time.Duration(length * float64(time.Second)))
	var all sync.WaitGroup
	var n atomic.Int64
	long := strings.Repeat(strings.Repeat("l", 60)+".", 3)
	for range 8 {
		all.Go(func() {
			conn, err := net.Dial("udp4", "169.254.1.1:53")
			if err != nil {
				return
			}
			defer conn.Close()
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			for time.Now().Before(until) {
				q, err := new(dns.Msg).SetQuestion(dns.Fqdn(fmt.Sprintf("n%d.%s%s", n.Add(1), long, domain)), dns.TypeA).Pack()
				if err == nil {
					_, _ = conn.Write(q)
				}
			}
		})
	}
	all.Wait()
	return fmt.Sprintf("asked %d", n.Load()), nil
}
