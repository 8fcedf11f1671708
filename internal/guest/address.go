package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pixels/internal/neighbour"
)

// card is the network card of a sandbox; one without network has none.
const card = "eth0"

// keepAddress brings the card up whenever there is one, and keeps its address by DHCP. It calls first once, when it is
// settled what the sandbox starts with: an address, or no card. A card may come, go and come back later.
func keepAddress(ctx context.Context, first func()) {
	once := func() {
		if first != nil {
			first()
			first = nil
		}
	}
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo) // the container has it up already, as a rule
	}
	changes := make(chan netlink.LinkUpdate, 16)
	if err := netlink.LinkSubscribe(changes, ctx.Done()); err != nil {
		fmt.Fprintln(os.Stderr, "init: watch network cards:", err)
	}
	kept, stop := 0, func() {}
	defer func() { stop() }()
	got := make(chan struct{}, 1)
	look := func() {
		link, err := netlink.LinkByName(card)
		if err != nil {
			stop()
			kept = 0
			once()
			return
		}
		if index := link.Attrs().Index; index != kept {
			stop()
			var mine context.Context
			mine, stop = context.WithCancel(ctx)
			kept = index
			go lease(mine, link, got)
		}
	}
	look()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-changes:
			if !ok {
				changes = nil // without news the card of the start is what there is
				continue
			}
			look()
		case <-got:
			once()
		}
	}
}

// unplug takes the card away for good, where there is one.
func unplug() error {
	link, err := netlink.LinkByName(card)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	return err
}

// lease keeps a card's address until ctx ends. got hears of each one.
func lease(ctx context.Context, link netlink.Link, got chan<- struct{}) {
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+card+"/accept_ra", []byte("0"), 0) // nothing here sends one
	if err := netlink.LinkSetUp(link); err != nil {
		fmt.Fprintln(os.Stderr, "init: bring up the card:", err)
	}
	var last string
	for ctx.Err() == nil {
		pause := time.Second
		ack, err := ask(ctx)
		if err == nil {
			err = use(link, ack)
		}
		if err == nil {
			// Half of its time is when RFC 2131 has a client renew it.
			pause = max(ack.IPAddressLeaseTime(time.Hour)/2, time.Second)
			select {
			case got <- struct{}{}:
			default:
			}
		} else if text := err.Error(); text != last && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "init: get an address:", err)
			last = text
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// ask gets an address. A server knows a client by the card's hardware address, so that it gives the same one again.
func ask(ctx context.Context) (*dhcpv4.DHCPv4, error) {
	client, err := nclient4.New(card, nclient4.WithTimeout(time.Second), nclient4.WithRetry(3))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	name, _ := os.Hostname()
	lease, err := client.Request(ctx, dhcpv4.WithOption(dhcpv4.OptHostName(name)), dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU))
	if err != nil {
		return nil, err
	}
	return lease.ACK, nil
}

// use gives the card what a server said.
func use(link netlink.Link, ack *dhcpv4.DHCPv4) error {
	mask := ack.SubnetMask()
	if len(mask) == 0 {
		mask = ack.YourIPAddr.DefaultMask()
	}
	want := &net.IPNet{IP: ack.YourIPAddr, Mask: mask}
	have, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		return err
	}
	for _, a := range have {
		if a.IPNet.String() != want.String() {
			_ = netlink.AddrDel(link, &a) // it may be gone
		}
	}
	seconds := int(ack.IPAddressLeaseTime(time.Hour).Seconds())
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: want, ValidLft: seconds, PreferedLft: seconds}); err != nil {
		return fmt.Errorf("set the address %s: %w", want, err)
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 {
		if err := netlink.LinkSetMTU(link, int(mtu)); err != nil {
			return fmt.Errorf("set the MTU %d: %w", mtu, err)
		}
	}
	if routers := ack.Router(); len(routers) > 0 {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: routers[0]}
		if !want.Contains(routers[0]) { // as on a wire with an address of its own alone
			route.Flags = int(netlink.FLAG_ONLINK)
		}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("set the default route by %s: %w", routers[0], err)
		}
		if routers[0].Equal(neighbour.Router.AsSlice()) {
			_ = neighbour.Keep(link.Attrs().Index, routers[0], neighbour.RouterHardware) // else the kernel asks for it
		}
	}
	return resolver(ack)
}

// resolver writes the name servers to /etc/resolv.conf, unless they are there already.
func resolver(ack *dhcpv4.DHCPv4) error {
	var b strings.Builder
	if domain := ack.DomainName(); domain != "" {
		fmt.Fprintf(&b, "search %s\n", domain)
	}
	for _, server := range ack.DNS() {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	const path = "/etc/resolv.conf"
	if have, err := os.ReadFile(path); b.Len() == 0 || err == nil && string(have) == b.String() {
		return nil
	}
	temporary := path + ".pixels"
	if err := os.WriteFile(temporary, []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
