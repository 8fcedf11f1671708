package gateway_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"pixels/egress"
	"pixels/egress/gateway"
	"pixels/internal/fakenet"
)

// Real sandboxes are dear: there are fewer of them in the test of package incus.
func TestManySandboxesGetWhatTheirOwnPolicyAllows(t *testing.T) {
	t.Parallel()
	const many = 200
	l := newLab(t)
	own := func(i int) string { return fmt.Sprintf("own-%d.example.com", i) }
	boxes, addresses := make([]*box, many), map[netip.Addr]string{}
	for i := range many {
		l.inet.Name(own(i), fakenet.Site)
		boxes[i] = l.box(fmt.Sprintf("box-%d", i), egress.Allowlist, own(i))
	}
	for _, wire := range l.do(gateway.Request{Op: gateway.Wires}).Wires {
		if wire.State != gateway.Taken || addresses[wire.Address] != "" {
			t.Errorf("%+v has the address of %q too", wire, addresses[wire.Address])
		}
		addresses[wire.Address] = wire.Sandbox
	}
	if len(addresses) != many {
		t.Errorf("%d sandboxes have %d addresses", many, len(addresses))
	}
	// All at once, each to what is its own and to what is its neighbour's.
	var all sync.WaitGroup
	for i, b := range boxes {
		at := map[string]netip.Addr{own(i): b.resolve(own(i)), own((i + 1) % many): b.resolve(own((i + 1) % many))}
		all.Go(func() {
			ask := func(name string) (string, error) {
				conn, err := b.Dial(t.Context(), "tcp4", at[name].String()+":443")
				if err != nil {
					return "", err
				}
				defer conn.Close()
				return b.secure(conn, name)
			}
			if got, err := ask(own(i)); err != nil || !strings.Contains(got, "you asked "+own(i)) {
				t.Errorf("box %d: its own: %q %v", i, got, err)
			}
			if got, err := ask(own((i + 1) % many)); err == nil {
				t.Errorf("box %d: its neighbour's: %q", i, got)
			}
		})
	}
	all.Wait()
	for i, b := range boxes {
		if denials := l.do(gateway.Request{Op: gateway.Denials, Sandbox: b.name}).Denials; len(denials) != 1 || denials[0].Domain != own((i+1)%many) {
			t.Errorf("box %d: its denials are %+v", i, denials)
		}
	}
}
