package gateway

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long an end of a connection is believed to be there that says nothing. One that answers the kernel's
// probes is there, however long its program sleeps.
type patience struct {
	idle, interval time.Duration // until the first probe, and between probes
	count          int           // of probes without an answer
	// unacknowledged bounds how long what was sent may wait for the other end (TCP_USER_TIMEOUT), also for a program that
	// reads nothing while more comes than fits.
	unacknowledged time.Duration
}

var (
	clientPatience   = patience{30 * time.Second, 10 * time.Second, 3, 3 * time.Hour}
	upstreamPatience = patience{60 * time.Second, 15 * time.Second, 4, 15 * time.Minute}
	// halfPatience is with a client that will send nothing more: it has closed either one direction, which may last, or both.
	halfPatience = patience{3 * time.Second, 3 * time.Second, 5, time.Minute}
)

// patient sets how long an end is believed to be there. That it fails changes nothing but this.
func patient(c *net.TCPConn, p patience) {
	_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: p.idle, Interval: p.interval, Count: p.count})
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(p.unacknowledged.Milliseconds()))
		})
	}
}

// stateClosed is TCP_CLOSE of the kernel's include/net/tcp_states.h.
const stateClosed = 7

// awaitGone waits until a client that has sent its end is gone altogether, as far as the kernel's probes tell, and returns
// true; or until the connection's read deadline is over.
func awaitGone(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	patient(c, halfPatience)
	gone := false
	_ = raw.Read(func(fd uintptr) bool {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err != nil || info.State == stateClosed
		return gone
	})
	return gone
}

// meminfo is SO_MEMINFO of the kernel's include/uapi/asm-generic/socket.h.
const meminfo = 55

// buffered returns how many bytes the kernel holds for a connection, overhead and all. It writes eight numbers, as many as
// an ICMPv6Filter has: that is how x/sys reads them without unsafe code.
func buffered(c syscall.Conn) (bytes int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if m, err := unix.GetsockoptICMPv6Filter(int(fd), unix.SOL_SOCKET, meminfo); err == nil {
			bytes = int(m.Data[0] + m.Data[5] + m.Data[7]) // SK_MEMINFO_RMEM_ALLOC, _WMEM_QUEUED, _BACKLOG of linux/sock_diag.h
		}
	})
	return bytes
}

// What connections may have in the kernel's buffers beyond what they are charged with, in bytes, and how often that is
// looked at.
const (
	maxBuffered      = 64 << 20
	maxBufferedOfOne = 24 << 20
	bufferedEvery    = 100 * time.Millisecond
	fewFlows         = 16 // that can't hold more than maxBuffered
)

// boundBuffers cuts connections whose ends don't take what they are sent, where a sandbox has too many of them.
func (g *Gateway) boundBuffers(ctx context.Context) error {
	tick := time.NewTicker(bufferedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.mu.Lock()
			g.cutBuffered()
			g.mu.Unlock()
		}
	}
}

// cutBuffered looks once. g.mu is held.
func (g *Gateway) cutBuffered() {
	flows := 0
	for _, w := range g.wires {
		flows += len(w.flows)
	}
	if flows <= fewFlows {
		return
	}
	all := 0
	held := map[*wire]int{}
	of := map[*flow]int{}
	for _, w := range g.wires {
		for f := range w.flows {
			of[f] = max(0, f.buffered()-plainCost/2)
			held[w] += of[f]
			all += of[f]
		}
	}
	for all > maxBuffered || anyOver(held, maxBufferedOfOne) {
		var worst *wire
		for w, n := range held {
			if worst == nil || n > held[worst] {
				worst = w
			}
		}
		var largest *flow
		for f := range worst.flows {
			if of[f] > 0 && (largest == nil || of[f] > of[largest]) {
				largest = f
			}
		}
		if largest == nil {
			return
		}
		if largest.cut() {
			g.tell(worst, Event{Verdict: Cut, Domain: largest.name, Address: largest.address, Port: largest.port, Reason: "its ends don't take what they are sent, and its share of the gateway's memory is taken"})
		}
		held[worst] -= of[largest]
		all -= of[largest]
		of[largest] = 0
	}
}

func anyOver(held map[*wire]int, most int) bool {
	for _, n := range held {
		if n > most {
			return true
		}
	}
	return false
}

// buffered is what the kernel holds for both ends of a connection.
func (f *flow) buffered() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return 0
	}
	n := buffered(f.client)
	for _, up := range f.upstream {
		if c, ok := up.(syscall.Conn); ok {
			n += buffered(c)
		}
	}
	return n
}
