// Package rawnet sends what ordinary sockets don't: frames and packets of one's own making. Root inside a sandbox can, so
// what probes the ways out of it has to.
package rawnet

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Everyone is the hardware address of all on a link.
var Everyone = net.HardwareAddr{255, 255, 255, 255, 255, 255}

// Datagram is an Ethernet frame with a UDP datagram by IPv4, from port 4444.
func Datagram(fromMAC, toMAC net.HardwareAddr, from, to netip.AddrPort, text string) []byte {
	header := make([]byte, 20)
	header[0], header[8], header[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(header[2:], uint16(28+len(text)))
	copy(header[12:], from.Addr().AsSlice())
	copy(header[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(header[10:], Checksum(header))
	udp := make([]byte, 8, 8+len(text)) // a checksum of 0 is none
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(text)))
	return append(append(append(Frame(fromMAC, toMAC, unix.ETH_P_IP), header...), udp...), text...)
}

// Frame is the head of an Ethernet frame.
func Frame(from, to net.HardwareAddr, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte{}, to...), from...), kind)
}

// Send puts a frame on a card.
func Send(card *net.Interface, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: card.Index})
}

// Checksum is that of the internet's protocols (RFC 1071).
func Checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Ping sends an echo request to an IPv4 address, and returns nil when it is answered within a time.
func Ping(address string, within time.Duration) error {
	conn, err := net.Dial("ip4:icmp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(within))
	echo := append([]byte{8, 0, 0, 0, 0, 1, 0, 2}, "tunnelled"...)
	binary.BigEndian.PutUint16(echo[2:], Checksum(echo))
	if _, err := conn.Write(echo); err != nil {
		return err
	}
	for answer := make([]byte, 200); ; {
		n, _, err := conn.(*net.IPConn).ReadFrom(answer) // Read would give the header too
		if err != nil {
			return err
		}
		if n >= 8 && answer[0] == 0 {
			return nil
		}
	}
}

// ErrNoAddress means that a card has no IPv4 address.
var ErrNoAddress = errors.New("the card has no address")

// Own returns the IPv4 address of a card.
func Own(card *net.Interface) (netip.Addr, error) {
	addresses, err := card.Addrs()
	for _, a := range addresses {
		if own, ok := a.(*net.IPNet); ok && own.IP.To4() != nil {
			return netip.AddrFrom4([4]byte(own.IP.To4())), nil
		}
	}
	if err == nil {
		err = ErrNoAddress
	}
	return netip.Addr{}, err
}
