package incus

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/sandbox"
)

// ManagedKey marks pools and networks that set-up made; only what carries it is ever changed or removed.
const ManagedKey = "user.pixels.managed"

// Provisioner prepares an Incus for sandboxes: the pool, the bridge and the base image, and their removal. Sandboxes
// themselves are no business of it.
type Provisioner struct {
	server *daemon
	config Config
}

// OpenProvisioner connects to the Incus of c. The error wraps ErrUnreachable when nothing answers.
func OpenProvisioner(ctx context.Context, c Config) (*Provisioner, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	server, err := connect(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Provisioner{server: server, config: c.withDefaults()}, nil
}

// Config returns the configuration in use, with its defaults filled in.
func (p *Provisioner) Config() Config { return p.config }

// ProvisionServer describes the Incus that answered.
type ProvisionServer struct {
	Version   string
	Drivers   []string // storage drivers that this server can use
	Clustered bool
	Firewall  string // what it filters and translates addresses with: nftables or xtables
}

// Server asks the Incus what it is.
func (p *Provisioner) Server(ctx context.Context) (ProvisionServer, error) {
	s, _, err := p.server.with(ctx).GetServer()
	if err != nil {
		return ProvisionServer{}, fmt.Errorf("ask Incus for its version: %w", err)
	}
	out := ProvisionServer{Version: s.Environment.ServerVersion, Clustered: s.Environment.ServerClustered, Firewall: s.Environment.Firewall}
	for _, d := range s.Environment.StorageSupportedDrivers {
		out.Drivers = append(out.Drivers, d.Name)
	}
	return out, nil
}

// ProvisionPool describes the storage pool of sandboxes.
type ProvisionPool struct {
	Name, Driver, Source string
	Managed              bool // made by set-up
	Broken               bool // Incus knows it but never finished making it
	Used, Total          uint64
}

// Pool returns the configured pool, or nil when there is none.
func (p *Provisioner) Pool(ctx context.Context) (*ProvisionPool, error) {
	pool, _, err := p.server.with(ctx).GetStoragePool(p.config.Pool)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the storage pool %q: %w", p.config.Pool, err)
	}
	out := &ProvisionPool{
		Name: pool.Name, Driver: pool.Driver, Source: pool.Config["source"],
		Managed: pool.Config[ManagedKey] == "true",
		Broken:  pool.Status == api.StoragePoolStatusPending || pool.Status == api.StoragePoolStatusErrored,
	}
	// Space is a nicety: a caller with few rights may see the pool but not its resources.
	if r, err := p.server.with(ctx).GetStoragePoolResources(p.config.Pool); err == nil {
		out.Used, out.Total = r.Space.Used, r.Space.Total
	}
	return out, nil
}

// NoteCharges notes at the pool whether it charges instances for what their snapshots hold. It tells whether that is new.
func (p *Provisioner) NoteCharges(ctx context.Context, charges bool) (bool, error) {
	pool, etag, err := p.server.with(ctx).GetStoragePool(p.config.Pool)
	if err != nil {
		return false, fmt.Errorf("look up the storage pool %q: %w", p.config.Pool, err)
	}
	text := strconv.FormatBool(charges)
	if pool.Config[ChargesKey] == text {
		return false, nil
	}
	put := pool.Writable()
	put.Config[ChargesKey] = text
	return true, p.server.commit(ctx).UpdateStoragePool(p.config.Pool, put, etag)
}

// CreatePool makes the configured pool with driver; size in bytes is that of its loop file, and ignored by
// the driver dir.
func (p *Provisioner) CreatePool(ctx context.Context, driver string, size int64) error {
	config := map[string]string{ManagedKey: "true"}
	if driver != "dir" {
		config["size"] = strconv.FormatInt(size, 10)
	}
	err := p.server.commit(ctx).CreateStoragePool(api.StoragePoolsPost{
		Name: p.config.Pool, Driver: driver,
		StoragePoolPut: api.StoragePoolPut{Config: config, Description: "Sandboxes of pixels"},
	})
	if err != nil {
		return fmt.Errorf("create the %s storage pool %q: %w", driver, p.config.Pool, err)
	}
	return nil
}

// DeletePool removes the configured pool, which must be empty.
func (p *Provisioner) DeletePool(ctx context.Context) error {
	if err := p.server.commit(ctx).DeleteStoragePool(p.config.Pool); err != nil && !missing(err) {
		return fmt.Errorf("delete the storage pool %q: %w", p.config.Pool, err)
	}
	return nil
}

// ProvisionNetwork describes the bridge of sandboxes.
type ProvisionNetwork struct {
	Name, Type, Address string
	NAT                 bool
	Managed             bool // made by set-up
	Broken              bool // Incus knows it but never finished making it
	Up                  bool
}

// Network returns the configured network, or nil when Incus knows none of that name.
func (p *Provisioner) Network(ctx context.Context) (*ProvisionNetwork, error) {
	n, _, err := p.server.with(ctx).GetNetwork(p.config.Network)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the network %q: %w", p.config.Network, err)
	}
	out := &ProvisionNetwork{
		Name: n.Name, Type: n.Type, Address: n.Config["ipv4.address"], NAT: n.Config["ipv4.nat"] == "true",
		Managed: n.Config[ManagedKey] == "true",
		Broken:  n.Managed && (n.Status == api.NetworkStatusPending || n.Status == api.NetworkStatusErrored),
	}
	if !n.Managed {
		// Incus lists interfaces of the host too, and won't create a network over one.
		out.Type = "host interface"
	}
	if s, err := p.server.with(ctx).GetNetworkState(p.config.Network); err == nil {
		out.Up = s.State == "up"
	}
	return out, nil
}

// CreateNetwork makes the configured bridge with IPv4 NAT and DHCP, and no IPv6. The address is the bridge's own, as
// 10.1.2.1/24, or "auto"; mtu 0 leaves Incus its default.
func (p *Provisioner) CreateNetwork(ctx context.Context, address string, mtu int) error {
	config := map[string]string{
		ManagedKey:     "true",
		"ipv4.address": address,
		"ipv4.nat":     "true",
		"ipv6.address": "none",
		"dns.mode":     "managed",
		// dnsmasq would ping each address for three seconds before it offers it; here it alone gives them out.
		"raw.dnsmasq": "no-ping",
	}
	if prefix, err := netip.ParsePrefix(address); err == nil {
		if config["ipv4.dhcp.ranges"], err = leases(prefix); err != nil {
			return err
		}
	}
	if mtu > 0 {
		config["bridge.mtu"] = fmt.Sprint(mtu)
	}
	err := amongOthers(ctx, func() error {
		return p.server.commit(ctx).CreateNetwork(api.NetworksPost{
			Name: p.config.Network, Type: "bridge",
			NetworkPut: api.NetworkPut{Config: config, Description: "Sandboxes of pixels"},
		})
	})
	if err != nil {
		return fmt.Errorf("create the bridge %q: %w", p.config.Network, err)
	}
	return nil
}

// amongOthers makes or deletes a network, again when another interface of the machine goes meanwhile: Incus looks at all of
// them, and fails when one does.
func amongOthers(ctx context.Context, do func() error) (err error) {
	for end := time.Now().Add(30 * time.Second); ; {
		if err = do(); err == nil || !interfaceWent(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// DeleteNetwork removes the configured network, which nothing may use.
func (p *Provisioner) DeleteNetwork(ctx context.Context) error {
	err := amongOthers(ctx, func() error { return p.server.commit(ctx).DeleteNetwork(p.config.Network) })
	if err != nil && !missing(err) {
		return fmt.Errorf("delete the network %q: %w", p.config.Network, err)
	}
	return nil
}

// RemoveAll deletes every instance of the configured project that carries a user.pixels key and, when all is set, the
// gateway and our images, network and pool too. It reports each removal to removed, goes on after a failure, and returns all of them.
// Nothing that lacks our mark is touched.
func (p *Provisioner) RemoveAll(ctx context.Context, all bool, removed func(what string)) error {
	errs := []error{p.removeInstances(ctx, all, removed)}
	if !all {
		return errs[0]
	}
	errs = append(errs, p.removeImages(ctx, removed))
	if n, err := p.Network(ctx); err != nil {
		errs = append(errs, err)
	} else if n != nil && n.Managed {
		if err := p.DeleteNetwork(ctx); err != nil {
			errs = append(errs, err)
		} else {
			removed("network " + n.Name)
		}
	}
	if pool, err := p.Pool(ctx); err != nil {
		errs = append(errs, err)
	} else if pool != nil && pool.Managed {
		if err := p.DeletePool(ctx); err != nil {
			errs = append(errs, err)
		} else {
			removed("storage pool " + pool.Name)
		}
	}
	return errors.Join(errs...)
}

// removeInstances deletes, by force and one after another, the instances that carry a user.pixels key; the gateway too when
// all is set.
func (p *Provisioner) removeInstances(ctx context.Context, all bool, removed func(string)) error {
	instances, err := p.server.with(ctx).GetInstances(api.InstanceTypeAny)
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	var errs []error
	for _, inst := range instances {
		if !ours(inst.Config) || inst.Config[gatewayKey] != "" && !all {
			continue
		}
		if err := remove(ctx, p.server, inst.Name); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			errs = append(errs, err)
			continue
		}
		what := "instance " + inst.Name
		if name := inst.Config["user.pixels.name"]; name != "" && name != inst.Name {
			what += " (sandbox " + name + ")"
		}
		removed(what)
	}
	return errors.Join(errs...)
}

// ours tells whether a configuration carries a key of ours.
func ours(config map[string]string) bool {
	for key := range config {
		if strings.HasPrefix(key, "user.pixels.") {
			return true
		}
	}
	return false
}

// Supports tells whether the server can make pools with driver.
func (s ProvisionServer) Supports(driver string) bool { return slices.Contains(s.Drivers, driver) }
