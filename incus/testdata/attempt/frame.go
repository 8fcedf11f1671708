package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"pixels/internal/rawnet"
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
	text, err := strconv.Unquote(`"` + args[4] + `"`)
	if err != nil {
		return "", err
	}
	from, err := rawnet.Own(card)
	if args[1] != "own" {
		from, err = netip.ParseAddr(args[1])
	}
	if err != nil {
		return "", err
	}
	target, err := netip.ParseAddrPort(args[2] + ":" + args[3])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(htons(unix.ETH_P_IP)))
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: card.Index}); err != nil {
		return "", err
	}
	if err := rawnet.Send(card, rawnet.Datagram(card.HardwareAddr, to, netip.AddrPortFrom(from, 4444), target, text)); err != nil {
		return "", err
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000})
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		b := make([]byte, 2000)
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err == nil && n > 42 && b[23] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(b[34:]) == target.Port() {
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
	packet := append(rawnet.Frame(card.HardwareAddr, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, unix.ETH_P_IPV6), 0x60, 0, 0, 0, 0, byte(8+len(text)), unix.IPPROTO_UDP, 64)
	packet = append(append(packet, net.ParseIP("2001:db8::2")...), net.ParseIP(to)...)
	packet = append(append(packet, 0x11, 0x5c, 1, 0xbb, 0, byte(8+len(text)), 0, 1), text...)
	return rawnet.Send(card, packet)
}

// claim tells everyone on the link that an address is ours (a gratuitous ARP reply, RFC 5227), for a while.
func claim(address string) error {
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	ip := net.ParseIP(address).To4()
	packet := append(rawnet.Frame(card.HardwareAddr, rawnet.Everyone, unix.ETH_P_ARP), 0, 1, 8, 0, 6, 4, 0, 2)
	packet = append(append(append(append(packet, card.HardwareAddr...), ip...), rawnet.Everyone...), ip...)
	for range 150 {
		if err := rawnet.Send(card, packet); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }
