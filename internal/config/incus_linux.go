package config

import "pixels/incus"

// IncusConfig returns what the Incus backend needs.
func (c Config) IncusConfig() incus.Config {
	i := c.Incus
	return incus.Config{
		Socket: i.Socket, Remote: i.Remote, ClientCert: i.ClientCert, ClientKey: i.ClientKey, ServerCert: i.ServerCert,
		Project: i.Project, Pool: i.Pool, Network: c.Defaults.Network, Image: c.ownImage(), Presets: c.presets, StrictECH: c.Defaults.StrictECH,
	}
}
