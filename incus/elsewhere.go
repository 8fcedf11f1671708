package incus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// elsewhere is a network of this machine beside the bridge, as another bridge is: a network namespace, the machine's end of
// its cable, and masquerading of what goes from it into the bridge. The namespace and the cable end with this process at the latest, and
// the next one removes the table that a killed one left.
type elsewhere struct {
	namespace netns.NsHandle
	address   netip.Addr // in the namespace
	cable     netlink.Link
	table     string
}

// elsewhereNet is TEST-NET-1 of RFC 5737, which no one has; each elsewhere takes four addresses of it.
var elsewhereNet = netip.MustParsePrefix("192.0.2.0/24")

// openElsewhere makes one beside a bridge of this machine. It takes root.
func openElsewhere(ctx context.Context, r HostRules) (_ *elsewhere, err error) {
	if err := removeLeftTables(ctx, r); err != nil {
		return nil, err
	}
	random := make([]byte, 4)
	_, _ = rand.Read(random) // it never fails
	base := elsewhereNet.Addr().As4()
	base[3] = random[0] &^ 3
	base[3]++
	own := netip.AddrFrom4(base)
	e := &elsewhere{namespace: netns.None(), address: own.Next()}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close(context.WithoutCancel(ctx)))
		}
	}()
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which is in the namespace, ends with the goroutine
		var err error
		e.namespace, err = netns.New()
		made <- err
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	inside, err := netlink.NewHandleAt(e.namespace)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	cable := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: card, PeerNamespace: netlink.NsFd(int(e.namespace))}
	cable.Name = fmt.Sprintf("pxc%x", random)
	if err := netlink.LinkAdd(cable); err != nil {
		return nil, fmt.Errorf("make a pair of interfaces: %w", err)
	}
	e.cable = cable
	end, err := inside.LinkByName(card)
	if err == nil {
		err = errors.Join(
			netlink.AddrAdd(cable, address30(own)), netlink.LinkSetUp(cable),
			inside.AddrAdd(end, address30(e.address)), inside.LinkSetUp(end),
			inside.RouteAdd(&netlink.Route{LinkIndex: end.Attrs().Index, Gw: own.AsSlice()}))
	}
	if err != nil {
		return nil, fmt.Errorf("set up a pair of interfaces: %w", err)
	}
	table := leftTables(r) + strconv.Itoa(os.Getpid()) + fmt.Sprintf("_%x", random)
	_, err = nft(ctx, fmt.Sprintf(`table ip %s {
	chain postrouting {
		type nat hook postrouting priority srcnat - 1; policy accept;
		oifname "%s" ip saddr %s masquerade
	}
}
`, table, r.Bridge, e.address), "-f", "-")
	if err != nil {
		return nil, err
	}
	e.table = table
	return e, nil
}

func address30(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(30, 32)}}
}

// do runs f in the namespace. What it opens stays there.
func (e *elsewhere) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked, as above
		err := netns.Set(e.namespace)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// close removes all of it.
func (e *elsewhere) close(ctx context.Context) (err error) {
	if e.table != "" {
		_, err = nft(ctx, "", "delete", "table", "ip", e.table)
	}
	if e.cable != nil {
		err = errors.Join(err, netlink.LinkDel(e.cable))
	}
	if e.namespace.IsOpen() {
		err = errors.Join(err, e.namespace.Close())
	}
	return err
}

// leftTables begins the names of the tables that an elsewhere of this bridge has. Its process follows.
func leftTables(r HostRules) string { return r.table() + "_canary_" }

// removeLeftTables removes the tables of processes that are gone.
func removeLeftTables(ctx context.Context, r HostRules) error {
	all, err := nft(ctx, "", "list", "tables", "ip")
	if err != nil {
		return err
	}
	for line := range strings.Lines(all) {
		name := strings.TrimSpace(strings.TrimPrefix(line, "table ip "))
		of, ok := strings.CutPrefix(name, leftTables(r))
		process, _, _ := strings.Cut(of, "_")
		id, err := strconv.Atoi(process)
		if !ok || err != nil || !errors.Is(syscall.Kill(id, 0), syscall.ESRCH) {
			continue
		}
		if _, err := nft(ctx, "", "delete", "table", "ip", name); err != nil {
			return err
		}
	}
	return nil
}
