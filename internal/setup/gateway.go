package setup

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"pixels/incus"
	"pixels/internal/guestbin"
)

// gateway makes the way out of sandboxes: an image of the program alone, and the instance that runs it. One that runs an
// older program is given the new one in place.
func (j *job) gateway(ctx context.Context, p *incus.Provisioner) error {
	start := time.Now()
	n, err := p.Network(ctx)
	if err != nil {
		return err
	}
	if n == nil || !n.Managed {
		j.warn("let set-up make the network: name one that isn't there in the configuration (defaults.network)",
			"no gateway: its addresses have to be kept out of the DHCP of the network, which pixels did not make")
		return nil
	}
	if err := j.gatewayImage(ctx, p); err != nil {
		return err
	}
	have, err := p.Gateway(ctx)
	switch {
	case err != nil:
		return err
	case have == nil:
		err = p.CreateGateway(ctx)
	case !have.Placed: // the network is another one than it was made for
		if err = p.DeleteGateway(ctx); err == nil {
			err = p.CreateGateway(ctx)
		}
	case have.Running && have.Current:
		j.had(start, "gateway %s", have.Name)
		return nil
	default:
		if !have.Running {
			err = p.StartGateway(ctx)
		}
		if err == nil && !have.Current {
			err = p.RenewGateway(ctx)
		}
	}
	if err != nil {
		return err
	}
	j.did(start, "gateway %s", p.Config().Gateway())
	return nil
}

// gatewayImage makes the image of the gateway's program unless it is there.
func (j *job) gatewayImage(ctx context.Context, p *incus.Provisioner) error {
	start := time.Now()
	name := p.Config().GatewayImage()
	program, version, err := guestbin.Gateway()
	if err != nil {
		return err
	}
	have, err := p.Image(ctx, name)
	if err != nil {
		return err
	}
	if have != nil && have.Managed && have.Version == version {
		j.had(start, "image %s", name)
		return nil
	}
	if have != nil && !have.Managed {
		return fmt.Errorf("the image %s is not one of pixels: remove its alias (incus image alias delete %s), and run set-up again", name, name)
	}
	f, err := os.CreateTemp("", "pixels-gateway-*.tar.gz")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := writeGateway(f, program, incus.ImageProperties(incus.KindGateway, version, "pixels", version)); err != nil {
		return fmt.Errorf("write the gateway's image: %w", err)
	}
	if err := p.ImportGatewayImage(ctx, f.Name()); err != nil {
		return err
	}
	j.did(start, "image %s", name)
	return nil
}

// writeGateway writes an image whose root holds the program as its first process, and the folders that it and Incus use.
func writeGateway(f *os.File, program []byte, properties map[string]string) error {
	var err error
	zip := gzip.NewWriter(f)
	archive := tar.NewWriter(zip)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err == nil {
			err = archive.WriteHeader(&h)
		}
		if err == nil {
			_, err = archive.Write(content)
		}
	}
	add(tar.Header{Name: "metadata.yaml", Mode: 0o644}, describe(properties))
	for _, dir := range []string{"", "dev/", "etc/", "proc/", "run/", "sbin/", "sys/", "tmp/", "var/", "var/lib/", "var/lib/pixels/"} {
		add(tar.Header{Name: "rootfs/" + dir, Mode: 0o755, Typeflag: tar.TypeDir}, nil)
	}
	add(tar.Header{Name: "rootfs/sbin/init", Mode: 0o755}, program)
	return errors.Join(err, archive.Close(), zip.Close())
}
