// Command attempt is what the tests of the ways around the gateway run as root inside a sandbox: it tries one way, and
// prints what came back.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"pixels/internal/rawnet"
)

func main() {
	kind, args := os.Args[1], os.Args[2:]
	var said string
	var err error
	switch kind {
	case "tcp":
		said, err = tcp(args)
	case "udp":
		said, err = udp(args[0], args[1])
	case "dns":
		said, err = ask(args[0], args[1], args[2], args[3])
	case "names":
		err = names(args[0], args[1])
	case "ping":
		if err = rawnet.Ping(args[0], time.Second); err == nil {
			said = "echo reply"
		}
	case "frame":
		said, err = frame(args)
	case "frame6":
		err = frame6(args[0], args[1])
	case "claim":
		err = claim(args[0])
	case "listen":
		err = listen(args[0], args[1])
	case "until":
		said, err = until(args[0], args[1])
	case "answers":
		said, err = answers(args[0])
	case "download":
		said, err = download(args[0], args[1], args[2])
	case "exhaust":
		said, err = exhaust(args[0], args[1])
	case "open":
		said, err = open(args[0], args[1], args[2], args[3], args[4])
	case "leave":
		said, err = leave(args[0], args[1])
	case "steady":
		said, err = steady(args[0], args[1])
	case "lookups":
		said, err = lookups(args[0], args[1])
	case "flood":
		flood(args[0])
	case "hold":
		said, err = hold(args[0])
	default:
		err = fmt.Errorf("no such attempt: %s", kind)
	}
	fmt.Print(said)
	if err != nil {
		fmt.Println("error:", err)
	}
}

// resolve asks the resolver of the sandbox, past any cache.
func resolve(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) != nil {
		return address, err
	}
	reply, err := exchange("169.254.1.1:53", "udp4", "A", host)
	if err != nil || len(reply.Answer) == 0 {
		return "", fmt.Errorf("%s has no address: %v", host, err)
	}
	return net.JoinHostPort(reply.Answer[0].(*dns.A).A.String(), port), nil
}

func tcp(args []string) (string, error) {
	f := flag.NewFlagSet("tcp", flag.ExitOnError)
	sni := f.String("sni", "", "do TLS with this server name; none for no name")
	host := f.String("host", "", "ask for / by HTTP with this Host")
	say := f.String("say", "", "what to say instead, as a Go string")
	inPieces := f.Bool("pieces", false, "send the ClientHello in records of 7 bytes, 10 ms apart")
	ech := f.Bool("ech", false, "do TLS with an Encrypted Client Hello")
	_ = f.Parse(args[1:])
	address, err := resolve(args[0])
	if err != nil {
		return "", err
	}
	conn, err := net.DialTimeout("tcp4", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	if *inPieces {
		conn = &pieces{Conn: conn} // with X25519 alone the ClientHello is short
	}
	if *sni != "" {
		config := &tls.Config{ServerName: *sni, InsecureSkipVerify: true}
		if *sni == "none" {
			config.ServerName = ""
		}
		if *inPieces {
			config.CurvePreferences = []tls.CurveID{tls.X25519}
		}
		if *ech {
			config.MinVersion, config.EncryptedClientHelloConfigList = tls.VersionTLS13, echConfig("allowed.example.com")
		}
		client := tls.Client(conn, config)
		if err := client.Handshake(); err != nil {
			return "", err
		}
		fmt.Println("tls done")
		conn = client
	}
	text := fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", *host)
	if *say != "" {
		if text, err = strconv.Unquote(`"` + *say + `"`); err != nil {
			return "", err
		}
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	b, err := io.ReadAll(conn)
	return string(b), err
}

// echConfig is a list of one configuration as RFC 9849 has it, for X25519, with a public name.
func echConfig(name string) []byte {
	body := append([]byte{1, 0, 0x20, 0, 32}, append(make([]byte, 31), 9)...)
	body = append(body, 0, 4, 0, 1, 0, 1, 32, byte(len(name)))
	body = append(append(body, name...), 0, 0)
	config := append([]byte{0xfe, 0x0d, 0, byte(len(body))}, body...)
	return append([]byte{0, byte(len(config))}, config...)
}

// pieces writes the first record as many of 7 bytes, 10 ms apart.
type pieces struct {
	net.Conn
	after bool
}

func (p *pieces) Write(b []byte) (int, error) {
	if p.after || len(b) < 5 || b[0] != 22 {
		return p.Conn.Write(b)
	}
	p.after = true
	for body := b[5:]; len(body) > 0; {
		n := min(7, len(body))
		if _, err := p.Conn.Write(append([]byte{22, 3, 1, 0, byte(n)}, body[:n]...)); err != nil {
			return 0, err
		}
		body = body[n:]
		time.Sleep(10 * time.Millisecond) // so that each is a segment of its own
	}
	return len(b), nil
}

func udp(address, text string) (string, error) {
	conn, err := net.Dial("udp4", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	b := make([]byte, 1500)
	n, err := conn.Read(b)
	return string(b[:n]), err
}

func exchange(server, network, kind, name string) (*dns.Msg, error) {
	client := &dns.Client{Net: network, Timeout: 3 * time.Second}
	reply, _, err := client.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[kind]), server)
	return reply, err
}

func ask(server, network, kind, name string) (string, error) {
	reply, err := exchange(server, network, kind, name)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, rr := range reply.Answer {
		lines = append(lines, rr.String())
	}
	return fmt.Sprintf("%s %d answers\n%s", dns.RcodeToString[reply.Rcode], len(lines), strings.Join(lines, "\n")), nil
}

// names asks for many names below a domain.
func names(count, domain string) error {
	n, err := strconv.Atoi(count)
	for i := 0; i < n && err == nil; i++ {
		_, err = exchange("169.254.1.1:53", "udp4", "A", fmt.Sprintf("secret-%d.%s", i, domain))
	}
	return err
}

func listen(port, word string) error {
	listener, err := net.Listen("tcp", ":"+port)
	for err == nil {
		var c net.Conn
		if c, err = listener.Accept(); err == nil {
			_, _ = io.WriteString(c, word)
			_ = c.Close()
		}
	}
	return err
}

// hold keeps a connection to an echo server busy until it ends, and says how.
func hold(address string) (string, error) {
	address, err := resolve(address)
	if err != nil {
		return "", err
	}
	conn, err := net.DialTimeout("tcp4", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	fmt.Println("held")
	b := make([]byte, 64)
	for {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		// Letters alone might become HTTP, and would be waited for.
		if _, err = io.WriteString(conn, "\x00tick"); err == nil {
			_, err = conn.Read(b)
		}
		if err != nil {
			return fmt.Sprint("ended ", time.Now().UnixNano(), "\n"), err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// flood tries for ever to get a marked packet out, from the first moment on: by TCP, UDP, ICMP and a raw frame.
func flood(target string) {
	to := netip.MustParseAddrPort(target + ":443")
	for {
		if conn, err := net.DialTimeout("tcp4", target+":80", 20*time.Millisecond); err == nil {
			_, _ = io.WriteString(conn, "GET /flood HTTP/1.1\r\nHost: denied.example.com\r\n\r\n")
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		if conn, err := net.Dial("udp4", target+":443"); err == nil {
			_, _ = io.WriteString(conn, "flood")
			_ = conn.Close()
		}
		if conn, err := net.Dial("ip4:icmp", target); err == nil {
			_, _ = conn.Write([]byte{8, 0, 0xf7, 0xfc, 0, 1, 0, 2})
			_ = conn.Close()
		}
		if card, err := net.InterfaceByName("eth0"); err == nil {
			_ = rawnet.Send(card, rawnet.Datagram(card.HardwareAddr, rawnet.Everyone, netip.MustParseAddrPort("10.1.1.1:4444"), to, "flood"))
		}
		time.Sleep(time.Millisecond)
	}
}
