package incus

import (
	"context"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"pixels/egress/gateway"
)

// An incusd that is killed while it changes the gateway's devices has made interfaces that it never wrote down, and never
// removes: wires with both ends in place that are no devices, or pairs that never came to be wires and lie on the host.

// deleteStrays deletes those of the gateway's interfaces that are no devices of it, unless Incus is at work on it just now
// and may be about to write them down. One with a sandbox on it serves until that has gone.
func (w *wires) deleteStrays(ctx context.Context, all []gateway.Wire) error {
	pairs := w.pairs() // before the look at what Incus does, so that none of them is of what it begins later
	strays, err := w.strays(ctx, all, pairs)
	if err != nil || len(strays)+len(pairs) == 0 {
		return err
	}
	if busy, err := w.busy(ctx); busy || err != nil {
		return err
	}
	// What was made before we looked whether Incus is at work is written down by now.
	if strays, err = w.strays(ctx, strays, pairs); err != nil {
		return err
	}
	for _, wire := range strays {
		if _, err := w.ask(ctx, gateway.Request{Op: gateway.Delete, Index: wire.Index}); err != nil {
			return fmt.Errorf("delete wire %d, which is no device of the gateway: %w", wire.Number, err)
		}
	}
	for name := range pairs {
		_ = deletePair(name) // else clear does, or passes it by, should its number be needed
	}
	return nil
}

// strays returns those of the wires that are no devices of the gateway, and that no sandbox has. It takes devices out of pairs.
func (w *wires) strays(ctx context.Context, all []gateway.Wire, pairs map[string]int) (found []gateway.Wire, err error) {
	inst, _, err := w.server.with(ctx).GetInstance(w.name)
	if err != nil {
		return nil, err
	}
	device := func(number int) bool { return inst.Devices[gateway.Interface(number)] != nil }
	for _, wire := range all {
		if wire.State != gateway.Taken && !device(wire.Number) {
			found = append(found, wire)
		}
	}
	maps.DeleteFunc(pairs, func(_ string, number int) bool { return device(number) })
	return found, nil
}

// pairs are the wires that lie on this host with both ends, by the name of one, with their numbers.
func (w *wires) pairs() map[string]int {
	found := map[string]int{}
	if !w.local {
		return found
	}
	links, _ := netlink.LinkList() // what can't be listed can't be deleted either
	for _, link := range links {
		digits, ours := strings.CutPrefix(link.Attrs().Name, w.ends)
		number, err := strconv.Atoi(digits)
		if ours && err == nil && bothEndsHere(link) {
			found[link.Attrs().Name] = number
		}
	}
	return found
}

// busy tells whether Incus is at work on the gateway's instance. It is not asked without need: incusd 6.0.4 ends itself where it
// changes what an operation tells in the instant in which it writes it ("concurrent map iteration and map write").
func (w *wires) busy(ctx context.Context) (bool, error) {
	all, err := w.server.with(ctx).GetOperations()
	if err != nil {
		return false, err
	}
	for _, op := range all {
		if op.Class != "task" || op.StatusCode.IsFinal() {
			continue
		}
		for _, instance := range op.Resources["instances"] {
			if instance, _, _ = strings.Cut(instance, "?"); path.Base(instance) == w.name {
				return true, nil
			}
		}
	}
	return false, nil
}

// clear makes way for the wire whose making failed because its name is taken on the host: it deletes the pair that lies
// there, or has the number passed by from now on when it can't, or when Incus is on another machine. It tells whether that was why, and is new.
func (w *wires) clear(err error) bool {
	n, ok := takenOnHost(err, w.ends)
	if !ok || w.blocked[n] {
		return false
	}
	// Where Incus is on another machine its error says nothing of this one.
	if !w.local || deletePair(w.hostEnd(n)) != nil {
		if w.blocked == nil {
			w.blocked = map[int]bool{}
		}
		w.blocked[n] = true
	}
	return true
}

// deletePair deletes a pair of interfaces that has both ends on this host.
func deletePair(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if !bothEndsHere(link) {
		return fmt.Errorf("%s is not of a pair with both ends here", name)
	}
	return netlink.LinkDel(link)
}

func bothEndsHere(link netlink.Link) bool { return link.Type() == "veth" && link.Attrs().NetNsID < 0 }
