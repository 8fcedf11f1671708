package fakenet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Packets are the IPv4 packets that arrive at a namespace's interface, whether anyone listens or not.
type Packets struct {
	also netip.Addr
	mu   sync.Mutex
	seen map[string]int
}

// Watch takes note of all packets that arrive at an interface: IPv4 for an address of the internet, or UDP for also, and IPv6
// from the documentation's addresses (RFC 3849).
func (s *Space) Watch(name, also string) *Packets {
	s.t.Helper()
	p := &Packets{also: netip.MustParseAddr(also), seen: map[string]int{}}
	fd := -1
	s.Do(func() {
		link, err := s.LinkByName(name)
		if err == nil {
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
		}
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: link.Attrs().Index})
		}
		if err != nil {
			s.t.Errorf("watch %s: %v", name, err)
		}
	})
	done, ended := make(chan struct{}), make(chan struct{})
	s.t.Cleanup(func() {
		close(done)
		<-ended
		_ = unix.Close(fd)
	})
	go func() {
		defer close(ended)
		b := make([]byte, 2048)
		for {
			select {
			case <-done:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, b, 0)
			if link, ok := from.(*unix.SockaddrLinklayer); err == nil && n >= 20 && ok && link.Pkttype != unix.PACKET_OUTGOING {
				switch {
				case link.Protocol == networkOrder(unix.ETH_P_IP):
					p.note(b[:n])
				case link.Protocol == networkOrder(unix.ETH_P_IPV6) && n >= 40 && string(b[8:12]) == "\x20\x01\x0d\xb8":
					p.count("IPv6")
				}
			}
		}
	}()
	return p
}

var internet = netip.MustParsePrefix("198.51.100.0/24")

func (p *Packets) note(b []byte) {
	from, _ := netip.AddrFromSlice(b[12:16])
	to, _ := netip.AddrFromSlice(b[16:20])
	if !internet.Contains(to) && (to != p.also || b[9] != unix.IPPROTO_UDP) {
		return
	}
	line := fmt.Sprintf("%s > %s", from, to)
	header := int(b[0]&15) * 4
	switch proto := b[9]; {
	case proto == unix.IPPROTO_ICMP:
		line += " icmp"
	case proto == unix.IPPROTO_UDP && len(b) >= header+4:
		line += fmt.Sprintf(":%d udp", binary.BigEndian.Uint16(b[header+2:]))
	case proto == unix.IPPROTO_TCP && len(b) >= header+4:
		line += fmt.Sprintf(":%d tcp", binary.BigEndian.Uint16(b[header+2:]))
	default:
		line += fmt.Sprintf(" protocol %d", proto)
	}
	p.count(line)
}

func (p *Packets) count(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[line]++
}

// Seen returns what arrived since the last call, as lines such as "10.0.0.1 > 198.51.100.10:443 udp", and how many of each.
func (p *Packets) Seen() map[string]int {
	time.Sleep(100 * time.Millisecond) // for what is on its way
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.seen
	p.seen = map[string]int{}
	return out
}

func networkOrder(n uint16) uint16 { return n<<8 | n>>8 }
