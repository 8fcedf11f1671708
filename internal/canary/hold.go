package canary

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Hold opens connections and holds them until its input ends, while what the sandbox may reach is narrowed: nothing is to
// come over them then, in neither direction. It says a word over each all the time, and the others say nothing before. It
// prints Ready once it has opened what it could, and listens on a port, where it says the word to who comes.
type Hold struct {
	To   []netip.AddrPort `json:"to"`
	Port uint16           `json:"port"`
}

// Held begins what is said over a held connection.
const Held = "held "

// Ready is the first line that Hold prints.
const Ready = "ready"

// openWait is how long a connection may take to open.
const openWait = time.Second

// openTries is how often connections are opened anew where none could be.
const openTries = 3

// holdPause is the time between two words over a held connection.
const holdPause = 50 * time.Millisecond

func (h *Hold) run(word string, in io.Reader, out io.Writer) error {
	var mu sync.Mutex
	var held []net.Conn
	var opening, holding sync.WaitGroup
	hold := func(to netip.AddrPort) {
		conn, err := net.DialTimeout("tcp4", to.String(), openWait)
		if err != nil {
			return
		}
		mu.Lock()
		held = append(held, conn)
		mu.Unlock()
		holding.Go(func() {
			for {
				if _, err := io.WriteString(conn, Held+word+"\n"); err != nil {
					return
				}
				time.Sleep(holdPause)
			}
		})
		holding.Go(func() {
			b := make([]byte, 200)
			if n, _ := conn.Read(b); strings.Contains(string(b[:n]), word) {
				mu.Lock()
				defer mu.Unlock()
				fmt.Fprintf(out, "%s is heard over a connection from before the mode was narrowed\n", to)
			}
		})
	}
	for range openTries { // on a busy machine the first packet of all may get lost
		for _, to := range h.To {
			opening.Go(func() { hold(to) })
		}
		if opening.Wait(); len(held) > 0 {
			break
		}
	}
	listener, err := net.Listen("tcp4", fmt.Sprintf(":%d", h.Port))
	if err == nil {
		mu.Lock()
		fmt.Fprintln(out, Ready)
		mu.Unlock()
		holding.Go(func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, word)
				_ = conn.Close()
			}
		})
		_, err = io.Copy(io.Discard, in)
		_ = listener.Close()
	}
	for _, conn := range held {
		_ = conn.Close()
	}
	holding.Wait()
	return err
}
