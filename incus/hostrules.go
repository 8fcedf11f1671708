package incus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress/gateway"
	"pixels/internal/neighbour"
)

// HostRules are rules of this machine's own firewall for the gateway's bridge, in a table that concerns nothing else. The
// gateway can't know what is this machine's: its public addresses, and other networks that it masquerades.
type HostRules struct {
	Bridge  string
	Address netip.Addr // this machine's on the bridge
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9_]`)

// table is the name of the rules' table.
func (r HostRules) table() string { return "pixels_" + notInName.ReplaceAllString(r.Bridge, "_") }

// Text is the rules in the language of nft(8). What stays on the bridge is not forwarded by the host, though it passes its
// rules where br_netfilter is loaded. Read again, it puts them in place of what is there, in one step.
func (r HostRules) Text() string {
	return fmt.Sprintf(`table inet %[1]s
delete table inet %[1]s
table inet %[1]s {
	chain input {
		type filter hook input priority filter - 5; policy accept;
		iifname != "%[2]s" accept
		ct direction reply accept
		ip daddr %[3]s meta l4proto { tcp, udp } th dport 53 accept
		drop
	}
	chain forward {
		type filter hook forward priority filter - 5; policy accept;
		oifname != "%[2]s" accept
		iifname "%[2]s" accept
		ct direction reply accept
		ct state related accept
		drop
	}
}
`, r.table(), r.Bridge, r.Address)
}

// errNoNFT means that rules can't be made or seen here.
var errNoNFT = errors.New("there is no nft here, or this is not root")

func nft(ctx context.Context, input string, args ...string) (string, error) {
	program, err := exec.LookPath("nft")
	if err != nil { // it lies where only root's PATH reaches
		program, err = exec.LookPath("/usr/sbin/nft")
	}
	if err != nil || os.Geteuid() != 0 {
		return "", errNoNFT
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("nft %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// Present tells whether the rules are in place.
func (r HostRules) Present(ctx context.Context) (bool, error) {
	have, err := nft(ctx, "", "list", "table", "inet", r.table())
	if errors.Is(err, errNoNFT) {
		return false, err
	}
	if err != nil {
		return false, nil // there is no such table
	}
	for _, rule := range []string{"hook input", "hook forward", `iifname != "` + r.Bridge + `" accept`, `oifname != "` + r.Bridge + `" accept`, `iifname "` + r.Bridge + `" accept`, "ip daddr " + r.Address.String()} {
		if !strings.Contains(have, rule) {
			return false, nil
		}
	}
	return strings.Count(have, "drop\n") == 2, nil
}

// Ensure puts the rules in place unless they are. It tells whether they were.
func (r HostRules) Ensure(ctx context.Context) (there bool, err error) {
	if there, err = r.Present(ctx); there || err != nil {
		return there, err
	}
	_, err = nft(ctx, r.Text(), "-f", "-")
	return false, err
}

// Remove removes the rules. It tells whether there were any.
func (r HostRules) Remove(ctx context.Context) (bool, error) {
	if err := removeLeftTables(ctx, r); errors.Is(err, errNoNFT) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if _, err := nft(ctx, "", "list", "table", "inet", r.table()); err != nil {
		return false, nil
	}
	_, err := nft(ctx, "", "delete", "table", "inet", r.table())
	return err == nil, err
}

// HostRulesOf returns the rules for the configured network; ok is false where it is none that set-up made.
func HostRulesOf(ctx context.Context, p *Provisioner) (r HostRules, ok bool, err error) {
	n, err := p.Network(ctx)
	if err != nil || n == nil || !n.Managed || n.Type != "bridge" {
		return r, false, err
	}
	own, err := netip.ParsePrefix(n.Address)
	return HostRules{n.Name, own.Addr()}, err == nil, err
}

// EnsureHostRules puts the rules in place again where this process may: they don't outlast a reboot, nor a firewall that
// flushes all. Where it may not it does nothing; the canary tells.
func EnsureHostRules(ctx context.Context, c Config) error {
	if c.Remote != "" || os.Geteuid() != 0 {
		return nil
	}
	p, err := OpenProvisioner(ctx, c)
	if err != nil {
		return err
	}
	r, ok, err := HostRulesOf(ctx, p)
	if err == nil && ok {
		_, err = r.Ensure(ctx)
	}
	if err = errors.Join(err, p.keepNeighbour(ctx)); err == nil && ok {
		err = p.noteRun(ctx)
	}
	return err
}

// noteRun notes that what a canary found in an earlier run of this machine holds for this one, too, because the host has what it had.
func (p *Provisioner) noteRun(ctx context.Context) error {
	if neighbour.Short() != 0 {
		return nil
	}
	inst, _, err := p.server.with(ctx).GetInstance(p.config.Gateway())
	if err == nil && inst.Config[edgeKey] == edgeClosed {
		var run []string
		if run, err = edgeRun(p.config, inst); err != nil {
			return err
		}
		err = edit(ctx, p.server, inst.Name, func(put *api.InstancePut) error {
			put.Config[edgeRunKey] = strings.Join(run, " ")
			return nil
		})
	}
	if missing(err) {
		return nil
	}
	return err
}

// keepNeighbour has this machine keep the gateway's hardware address, whatever a sandbox does to the table of neighbours,
// where it is the machine of the bridge and this process may.
func (p *Provisioner) keepNeighbour(ctx context.Context) error {
	link, err := net.InterfaceByName(p.config.Network)
	if err != nil || p.config.Remote != "" || os.Geteuid() != 0 {
		return nil
	}
	inst, _, err := p.server.with(ctx).GetInstance(p.config.Gateway())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	place, err := placeOf(inst)
	if err != nil {
		return err
	}
	hardware, err := net.ParseMAC(inst.Config["volatile.eth0.hwaddr"])
	if err == nil {
		err = neighbour.Keep(link.Index, place.Address.Addr().AsSlice(), hardware)
	}
	if err != nil {
		return fmt.Errorf("keep the gateway's hardware address: %w", err)
	}
	return nil
}

// placeOf is what a gateway was told about where it is.
func placeOf(inst *api.Instance) (c gateway.Config, err error) {
	if err = json.Unmarshal([]byte(inst.Config["environment."+gateway.Environment]), &c); err != nil {
		err = fmt.Errorf("read what the gateway %s was told: %w", inst.Name, err)
	}
	return c, err
}
