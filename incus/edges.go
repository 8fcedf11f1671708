package incus

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/canary"
	"pixels/internal/guest"
	"pixels/internal/guestbin"
	"pixels/internal/neighbour"
	"pixels/sandbox"
)

// What follows are the edges that the gateway can't hold by itself, or not by a rule of the moment: what the host has and forwards,
// connections from before a mode was narrowed, and the table of neighbours that the machine has one of.

// edges tries them from a canary's sandbox that reaches everything.
type edges struct {
	*Backend
	host  HostRules
	probe canary.Probe    // its word, and the addresses of the host
	ears  *ears           // nil where the bridge is on another machine
	box   sandbox.Sandbox // it reaches everything
}

func (e *edges) try(ctx context.Context, found *CanaryFound) error {
	answering, err := e.Backend.probe(ctx, e.box.ID, canary.Probe{Edge: e.probe.Hosts})
	if err != nil {
		return err
	}
	if e.ears != nil { // one that went meanwhile, with its interface, is somebody else's by now
		still, _ := ownAddresses(0)
		answering = slices.DeleteFunc(answering, func(at string) bool {
			return !slices.ContainsFunc(still, func(own netip.AddrPort) bool { return own.Addr().String() == at })
		})
	}
	if len(answering) > 0 {
		found.Gaps = append(found.Gaps, "the host answers at "+strings.Join(answering, ", ")+", so that an allowed name that leads there reaches its services")
	}
	if err := e.forgotten(ctx, found); err != nil {
		return err
	}
	if e.ears == nil {
		found.Untried = append(found.Untried, "connections from before a mode was narrowed, and what is forwarded into the bridge: it is on another machine")
		return nil
	}
	beyond, err := openElsewhere(ctx, e.host)
	if err != nil {
		found.Untried = append(found.Untried, fmt.Sprintf("what this machine forwards into the bridge: %v", err))
		return e.outliving(ctx, nil, found)
	}
	return errors.Join(e.outliving(ctx, beyond, found), beyond.close(context.WithoutCancel(ctx)))
}

// forgotten looks whether all keep the hardware addresses that sandboxes need, so that one that fills the table of
// neighbours takes the way out from nobody.
func (e *edges) forgotten(ctx context.Context, found *CanaryFound) error {
	gap := func(text string, args ...any) { found.Gaps = append(found.Gaps, fmt.Sprintf(text, args...)) }
	place, current, err := e.place(ctx)
	if err != nil {
		return err
	}
	own, err := netip.ParseAddr(e.box.Address)
	if err != nil {
		return fmt.Errorf("the address of the canary's sandbox: %w", err)
	}
	lost, err := e.Backend.probe(ctx, e.box.ID, canary.Probe{Neighbours: []netip.Addr{neighbour.Router}})
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		gap("sandboxes of the image %s may lose their way out when another one fills the table of neighbours", e.config.Image)
	}
	if current {
		out := heard{most: saidMost}
		if err := e.runProbe(ctx, e.wires.name, gatewayProgram, canary.Probe{Neighbours: []netip.Addr{own, place.Host}}, nil, &out); err != nil {
			return err
		}
		for address := range strings.Lines(out.String()) {
			gap("the gateway may forget the hardware address of %s when a sandbox fills the table of neighbours", strings.TrimSpace(address))
		}
	} else {
		found.Untried = append(found.Untried, "the gateway's table of neighbours: it has the program of another version of pixels")
	}
	if e.ears == nil {
		return nil
	}
	kept, err := neighbour.Kept(place.Address.Addr().AsSlice())
	if err != nil {
		return err
	}
	if !kept {
		gap("this machine may forget the gateway's hardware address when a sandbox fills the table of neighbours")
	}
	if limit := neighbour.Short(); limit != 0 {
		gap("the table of neighbours of this machine has room for %d only, which one sandbox can fill", limit)
	}
	return nil
}

// place is what the gateway was told about where it is, and whether it has the program of this version.
func (e *edges) place(ctx context.Context) (c gateway.Config, current bool, err error) {
	inst, err := e.gateway(ctx)
	if err != nil {
		return c, false, err
	}
	_, version, err := guestbin.Gateway()
	if err == nil {
		c, err = placeOf(inst)
	}
	return c, inst.Config[gatewayKey] == version, err
}

// outliving holds connections to the host, and to somebody beyond it, out of a sandbox that reaches everything, narrows
// what it may reach, and finds over which of them anything comes still. Before that it looks whether what is beyond
// reaches the sandbox.
func (e *edges) outliving(ctx context.Context, beyond *elsewhere, found *CanaryFound) (err error) {
	hold := &canary.Hold{To: slices.Clone(e.probe.Hosts), Port: holdPort}
	hearing := []*ears{e.ears}
	if beyond != nil {
		far := &ears{word: e.probe.Word}
		var port uint16
		if err := beyond.do(func() (err error) { port, err = far.open(); return err }); err != nil {
			return fmt.Errorf("listen beside the bridge: %w", err)
		}
		defer far.close()
		hearing = append(hearing, far)
		hold.To = append(hold.To, netip.AddrPortFrom(beyond.address, port))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, stop := io.Pipe()
	lines, out := io.Pipe()
	go func() {
		err := e.runProbe(ctx, e.box.ID, path.Join(guest.Dir, "probe"), canary.Probe{Word: e.probe.Word, Hold: hold}, in, out)
		_ = out.CloseWithError(err) // nil is an end
	}()
	defer lines.Close()
	defer stop.Close()
	said := bufio.NewScanner(lines)
	if !said.Scan() || said.Text() != canary.Ready {
		return cmp.Or(said.Err(), errors.New("the canary's program did not begin"))
	}
	if beyond != nil {
		at := net.JoinHostPort(e.box.Address, strconv.Itoa(holdPort))
		if listen(ctx, at) != e.probe.Word {
			found.Untried = append(found.Untried, "what this machine forwards into the bridge: it does not reach sandboxes itself")
		}
		err := beyond.do(func() error {
			if listen(ctx, at) == e.probe.Word {
				found.Gaps = append(found.Gaps, "what this machine forwards from its other networks reaches sandboxes")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	holding := func() bool { return slices.ContainsFunc(hearing, (*ears).holding) }
	for end := time.Now().Add(2 * time.Second); !holding() && time.Now().Before(end); { // what was opened may not be noted yet
		time.Sleep(20 * time.Millisecond)
	}
	if !holding() {
		found.Untried = append(found.Untried, "connections from before a mode was narrowed: none could be opened")
	}
	_, err = e.SetEgress(ctx, e.box.ID, func(egress.Mode, []egress.Grant) (egress.Mode, []egress.Grant, error) {
		return egress.Allowlist, nil, nil
	})
	if err != nil {
		return fmt.Errorf("narrow the egress of the canary's sandbox: %w", err)
	}
	time.Sleep(200 * time.Millisecond) // for what was on its way
	for _, hears := range hearing {
		hears.speak()
	}
	time.Sleep(500 * time.Millisecond)
	for _, hears := range hearing {
		found.Ways = append(found.Ways, hears.spoken()...)
	}
	_ = stop.Close()
	for said.Scan() {
		found.Ways = append(found.Ways, said.Text())
	}
	return said.Err()
}

// holdPort is where a canary's sandbox listens.
const holdPort = 9

// listen returns what is said at an address.
func listen(ctx context.Context, address string) string {
	conn, err := (&net.Dialer{Timeout: 500 * time.Millisecond}).DialContext(ctx, "tcp4", address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
	text, _ := io.ReadAll(conn)
	return string(text)
}
