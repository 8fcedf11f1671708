// Package canary tries the ways out that a sandbox might have, inside one. It is no part of the program that every sandbox
// runs, which would be twice as large with it.
package canary

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"pixels/internal/neighbour"
	"pixels/internal/rawnet"
)

// Probe says where a probe of the ways out of a sandbox is to knock.
type Probe struct {
	Word  string           `json:"word"`            // what is sent, and looked for
	Hosts []netip.AddrPort `json:"hosts"`           // of the host, where TCP and UDP are listened to
	MACs  []string         `json:"macs,omitempty"`  // hardware addresses of the host's ends of networks
	Peers []netip.Addr     `json:"peers,omitempty"` // other sandboxes
	Names netip.Prefix     `json:"names"`           // where the gateway's answers to questions for names lie

	// Each of these is a probe of its own, with which nothing else is tried.
	Edge       []netip.AddrPort `json:"edge,omitempty"`       // addresses of the host that nothing on the bridge is to reach
	Hold       *Hold            `json:"hold,omitempty"`       // connections that are to be cut
	Neighbours []netip.Addr     `json:"neighbours,omitempty"` // whose hardware addresses the kernel is to keep
}

// probeWait is how long an answer is waited for.
const probeWait = 300 * time.Millisecond

// card is a sandbox's card.
const card = "eth0"

// Run tries the ways out that a sandbox might have, as root, and prints those over which something came back, a line
// each. What gets out without an answer, they see who listen where it knocks. The end of in ends what goes on until then.
func (p Probe) Run(in io.Reader, out io.Writer) error {
	switch {
	case p.Hold != nil:
		return p.Hold.run(p.Word, in, out)
	case len(p.Neighbours) > 0:
		return neighbours(p.Neighbours, out)
	case len(p.Edge) > 0:
		edge(p.Edge, out)
		return nil
	}
	link, err := net.InterfaceByName(card)
	if err != nil {
		return err
	}
	own, err := rawnet.Own(link)
	if err != nil {
		return err
	}
	for _, host := range p.Hosts {
		if conn, err := net.DialTimeout("tcp4", host.String(), probeWait); err == nil {
			_ = conn.SetDeadline(time.Now().Add(probeWait))
			_, _ = io.WriteString(conn, p.Word+" TCP")
			_ = conn.Close()
		}
		if conn, err := net.Dial("udp4", host.String()); err == nil {
			_, _ = io.WriteString(conn, p.Word+" UDP")
			_ = conn.Close()
		}
		for _, mac := range append([]string{rawnet.Everyone.String()}, p.MACs...) {
			if to, err := net.ParseMAC(mac); err == nil {
				_ = rawnet.Send(link, rawnet.Datagram(link.HardwareAddr, to, netip.AddrPortFrom(own, 4444), host, p.Word+" a frame to "+mac))
			}
		}
		if rawnet.Ping(host.Addr().String(), probeWait) == nil {
			fmt.Fprintf(out, "%s answers ping\n", host.Addr())
		}
	}
	for _, peer := range p.Peers {
		if rawnet.Ping(peer.String(), probeWait) == nil {
			fmt.Fprintf(out, "another sandbox, %s, answers ping\n", peer)
		}
	}
	for _, server := range p.servers() {
		client := &dns.Client{Timeout: probeWait}
		reply, _, err := client.Exchange(new(dns.Msg).SetQuestion(p.Word+".example.com.", dns.TypeA), server)
		if err != nil {
			continue
		}
		for _, answer := range reply.Answer {
			if a, ok := answer.(*dns.A); !ok || !p.Names.Contains(netip.AddrFrom4([4]byte(a.A.To4()))) {
				fmt.Fprintf(out, "the DNS at %s answers by itself\n", server)
			}
		}
		if len(reply.Answer) == 0 {
			fmt.Fprintf(out, "the DNS at %s answers by itself\n", server)
		}
	}
	for _, path := range []string{"/dev/incus", "/dev/lxd"} {
		if _, err := os.Stat(path); err == nil {
			fmt.Fprintf(out, "%s is there, by which Incus can be reached\n", path)
		}
	}
	return nil
}

// edge prints which addresses answer.
func edge(hosts []netip.AddrPort, out io.Writer) {
	answers := make([]bool, len(hosts))
	var dialling sync.WaitGroup
	for i, host := range hosts {
		dialling.Go(func() {
			conn, err := net.DialTimeout("tcp4", host.String(), openWait)
			if err == nil {
				_ = conn.Close()
			}
			answers[i] = err == nil || errors.Is(err, syscall.ECONNREFUSED) // that nobody listens is an answer
		})
	}
	dialling.Wait()
	for i, host := range hosts {
		if answers[i] {
			fmt.Fprintln(out, host.Addr())
		}
	}
}

// neighbours prints whose hardware address is not kept.
func neighbours(addresses []netip.Addr, out io.Writer) error {
	for _, a := range addresses {
		kept, err := neighbour.Kept(a.AsSlice())
		if err != nil {
			return err
		}
		if !kept {
			fmt.Fprintln(out, a)
		}
	}
	return nil
}

// Main runs the probe that stdin describes in JSON, and returns the exit code.
func Main() int {
	var p Probe
	err := json.NewDecoder(os.Stdin).Decode(&p)
	if err == nil {
		err = p.Run(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 1
	}
	return 0
}

// servers are the DNS servers that might answer.
func (p Probe) servers() (out []string) {
	for _, host := range p.Hosts {
		out = append(out, netip.AddrPortFrom(host.Addr(), 53).String())
	}
	return out
}
