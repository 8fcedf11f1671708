package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// frame sends a UDP datagram in a frame of its own making, and prints the datagrams that come back: to a hardware address
// (or broadcast), from an address (or "own"), to an address and port, with a text that is written as a Go string.
func frame(args []string) (string, error) {
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return "", err
	}
	to, err := net.ParseMAC(args[0])
	if err != nil {
		return "", err
	}
	port, err := strconv.Atoi(args[3])
	if err != nil {
		return "", err
	}
	text, err := strconv.Unquote(`"` + args[4] + `"`)
	if err != nil {
		return "", err
	}
	from := net.ParseIP(args[1])
	if args[1] == "own" {
		addresses, err := card.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addresses {
			if ip := a.(*net.IPNet).IP.To4(); ip != nil {
				from = ip
			}
		}
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(htons(unix.ETH_P_IP)))
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: card.Index}); err != nil {
		return "", err
	}
	packet := datagram(card.HardwareAddr, to, from, net.ParseIP(args[2]), uint16(port), text)
	if err := unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{Ifindex: card.Index}); err != nil {
		return "", err
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000})
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		b := make([]byte, 2000)
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err == nil && n > 42 && b[23] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(b[34:]) == uint16(port) {
			return fmt.Sprintf("answer: %q", b[42:n]), nil
		}
	}
	return "", fmt.Errorf("no answer")
}

// frame6 sends a UDP datagram by IPv6 from 2001:db8::2, to all on the link.
func frame6(to, text string) error {
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	packet := append(append([]byte{0x33, 0x33, 0, 0, 0, 1}, card.HardwareAddr...), 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(8+len(text)), unix.IPPROTO_UDP, 64)
	packet = append(append(packet, net.ParseIP("2001:db8::2")...), net.ParseIP(to)...)
	packet = append(append(packet, 0x11, 0x5c, 1, 0xbb, 0, byte(8+len(text)), 0, 1), text...)
	return unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{Ifindex: card.Index})
}

// claim tells everyone on the link that an address is ours (a gratuitous ARP reply, RFC 5227), for a while.
func claim(address string) error {
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	all := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	ip := net.ParseIP(address).To4()
	packet := append(append(append([]byte{}, all...), card.HardwareAddr...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	packet = append(append(append(append(packet, card.HardwareAddr...), ip...), all...), ip...)
	for range 150 {
		if err := unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{Ifindex: card.Index}); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// datagram is an Ethernet frame with a UDP datagram from port 4444.
func datagram(fromMAC, toMAC net.HardwareAddr, from, to net.IP, port uint16, text string) []byte {
	header := make([]byte, 20)
	header[0], header[8], header[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(header[2:], uint16(28+len(text)))
	copy(header[12:], from.To4())
	copy(header[16:], to.To4())
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	udp := make([]byte, 8, 8+len(text)) // a checksum of 0 is none
	binary.BigEndian.PutUint16(udp, 4444)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(text)))
	packet := append(append(append([]byte{}, toMAC...), fromMAC...), 8, 0)
	return append(append(append(packet, header...), udp...), text...)
}

func checksum(b []byte) uint16 {
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

func htons(n uint16) uint16 { return n<<8 | n>>8 }
