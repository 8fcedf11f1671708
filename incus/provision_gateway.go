package incus

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path"

	"github.com/lxc/incus/v6/shared/api"

	client "github.com/lxc/incus/v6/client"

	"pixels/egress/gateway"
	"pixels/internal/guestbin"
)

// The gateway's image and instance. There is one gateway for a project and network.
const (
	KindGateway = "gateway"
	gatewayKey  = "user.pixels.gateway" // on the instance: the version of its program
	gatewayDisk = "256MiB"
	gatewayRAM  = "256MiB"
)

// GatewayImage is the alias of the gateway's image.
func (c Config) GatewayImage() string { return "pixels/gateway" }

// Gateway is the name of the gateway's instance.
func (c Config) Gateway() string { return "pixels-gateway-" + c.withDefaults().Network }

// gatewayPlace says where in a network the gateway stands: it has the second address of it, and the upper half is for
// sandboxes. What the network's own DHCP gives out is in the lower half.
func gatewayPlace(network netip.Prefix) (gateway.Config, error) {
	own := netip.PrefixFrom(network.Masked().Addr().Next().Next(), network.Bits())
	if !network.Addr().Is4() || network.Bits() > 24 || own.Addr() == network.Addr() {
		return gateway.Config{}, fmt.Errorf("the network %s can't hold a gateway: it takes an IPv4 network of /24 or wider, with its own address as the first in it", network)
	}
	half := network.Masked().Addr().As4()
	binary.BigEndian.PutUint32(half[:], binary.BigEndian.Uint32(half[:])+1<<(31-network.Bits()))
	return gateway.Config{
		Uplink: "eth0", Address: own, Host: network.Addr(), Resolver: netip.AddrPortFrom(network.Addr(), 53),
		First: netip.AddrFrom4(half), Wires: 1<<(32-network.Bits())/2 - 1,
		Dir: "/var/lib/pixels", Socket: "/run/pixels-gateway",
	}, nil
}

// leases is the range of a network that its own DHCP may give out, as Incus writes it: what the gateway leaves.
func leases(network netip.Prefix) (string, error) {
	place, err := gatewayPlace(network)
	if err != nil {
		return "", err
	}
	return place.Address.Addr().Next().String() + "-" + place.First.Prev().String(), nil
}

// ProvisionGateway describes the gateway's instance.
type ProvisionGateway struct {
	Name    string
	Running bool
	Placed  bool // it is configured for the network as it is now
	Current bool // its program is that of this version of pixels
	Held    bool // a canary found no way past it, and it has the same program since
	Edge    bool // a canary found that the host lacks nothing, since the host was started
}

// Gateway returns the gateway's instance, or nil when there is none.
func (p *Provisioner) Gateway(ctx context.Context) (*ProvisionGateway, error) {
	name := p.config.Gateway()
	inst, _, err := p.server.with(ctx).GetInstance(name)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the gateway %s: %w", name, err)
	}
	if inst.Config[gatewayKey] == "" {
		return nil, fmt.Errorf("the instance %s is not the gateway that pixels made: rename it, for the gateway needs its name", name)
	}
	_, version, err := guestbin.Gateway()
	if err != nil {
		return nil, err
	}
	config, err := p.gatewayConfig(ctx)
	if err != nil {
		return nil, err
	}
	return &ProvisionGateway{
		Name: name, Running: inst.StatusCode == api.Running,
		Placed: inst.Config["environment."+gateway.Environment] == config, Current: inst.Config[gatewayKey] == version,
		Held: inst.Config[canaryKey] == canaryFine, Edge: edgeGap(p.config, inst) == "",
	}, nil
}

// gatewayConfig is what the gateway of the configured network is told, as JSON.
func (p *Provisioner) gatewayConfig(ctx context.Context) (string, error) {
	n, _, err := p.server.with(ctx).GetNetwork(p.config.Network)
	if err != nil {
		return "", fmt.Errorf("look up the network %q: %w", p.config.Network, err)
	}
	prefix, err := netip.ParsePrefix(n.Config["ipv4.address"])
	if err != nil {
		return "", fmt.Errorf("the address of the network %q: %w", n.Name, err)
	}
	place, err := gatewayPlace(prefix)
	if err != nil {
		return "", err
	}
	place.StrictECH = p.config.StrictECH
	if p.config.place != nil {
		p.config.place(&place)
	}
	text, err := json.Marshal(place)
	return string(text), err
}

// CreateGateway makes the gateway from its image and starts it.
func (p *Provisioner) CreateGateway(ctx context.Context) error {
	_, version, err := guestbin.Gateway()
	if err != nil {
		return err
	}
	config, err := p.gatewayConfig(ctx)
	if err != nil {
		return err
	}
	other, err := p.otherGateway(ctx)
	if err != nil {
		return err
	}
	if other != "" {
		return fmt.Errorf("the network %s has a gateway of the project %s already: give the project %s a network of its own (defaults.network)", p.config.Network, other, p.config.Project)
	}
	image, _, err := p.server.with(ctx).GetImageAlias(p.config.GatewayImage())
	if err != nil {
		return fmt.Errorf("find the gateway's image: %w", err)
	}
	op, err := p.server.commit(ctx).CreateInstance(api.InstancesPost{
		Name: p.config.Gateway(), Type: api.InstanceTypeContainer, Source: api.InstanceSource{Type: "image", Fingerprint: image.Target},
		InstancePut: api.InstancePut{
			Profiles: []string{}, Description: "The way out of sandboxes of pixels",
			Config: map[string]string{
				gatewayKey: version, "environment." + gateway.Environment: config,
				"security.guestapi": "false", "security.idmap.isolated": "true",
				"boot.autostart": "true", "boot.autostart.priority": "100", // before the sandboxes that ran
				"limits.memory": gatewayRAM, "limits.processes": "256",
			},
			Devices: map[string]map[string]string{
				"root": {"type": "disk", "path": "/", "pool": p.config.Pool, "size": gatewayDisk},
				"eth0": {"type": "nic", "name": "eth0", "network": p.config.Network},
			},
		},
	})
	if _, err = finish(ctx, p.server, op, err); err != nil {
		return fmt.Errorf("create the gateway: %w", err)
	}
	return p.StartGateway(ctx)
}

// otherGateway names the project that has a gateway on the configured network, where there can be one, when it is another.
func (p *Provisioner) otherGateway(ctx context.Context) (string, error) {
	n, _, err := p.server.with(ctx).GetNetwork(p.config.Network)
	if err != nil {
		return "", fmt.Errorf("look up the network %q: %w", p.config.Network, err)
	}
	for _, user := range n.UsedBy {
		at, err := url.Parse(user)
		if err != nil || path.Base(at.Path) != p.config.Gateway() {
			continue
		}
		if project := cmp.Or(at.Query().Get("project"), "default"); project != p.config.Project {
			return project, nil
		}
	}
	return "", nil
}

// StartGateway starts the gateway's instance and waits until it serves.
func (p *Provisioner) StartGateway(ctx context.Context) error {
	if err := startGateway(ctx, p.server, p.config.Gateway()); err != nil {
		return err
	}
	return p.keepNeighbour(ctx)
}

func startGateway(ctx context.Context, server *daemon, name string) error {
	op, err := server.commit(ctx).UpdateInstanceState(name, api.InstanceStatePut{Action: "start", Timeout: -1}, "")
	if _, err = finish(ctx, server, op, err); err != nil && !runningAlready(err) {
		return fmt.Errorf("start the gateway %s: %w", name, err)
	}
	return awaitGateway(ctx, server, name)
}

// DeleteGateway removes the gateway's instance, with all wires: running sandboxes have no way out then.
func (p *Provisioner) DeleteGateway(ctx context.Context) error {
	return remove(ctx, p.server, p.config.Gateway())
}

// ImportGatewayImage makes an image of a root file system's tarball and puts it behind the gateway's alias.
func (p *Provisioner) ImportGatewayImage(ctx context.Context, tarball string) error {
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.importImage(ctx, KindGateway, p.config.GatewayImage(), &client.ImageCreateArgs{MetaFile: f, MetaName: "gateway.tar.gz", Type: "container"})
}
