package incus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/guestbin"
)

// Properties of a base image that set-up made.
const (
	provisionKindKey    = "user.pixels.image"   // which of the images it is, as "base"
	provisionVersionKey = "user.pixels.version" // hash of the recipe it was made with
)

// ProvisionImage describes the image behind the configured alias.
type ProvisionImage struct {
	Fingerprint, Version, Description string
	Managed                           bool // made by set-up
	Created                           time.Time
}

// Image returns the image of an alias or fingerprint, or nil when there is none.
func (p *Provisioner) Image(ctx context.Context, name string) (*ProvisionImage, error) {
	fingerprint := name
	alias, _, err := p.server.with(ctx).GetImageAlias(name)
	switch {
	case err == nil:
		fingerprint = alias.Target
	case !missing(err):
		return nil, fmt.Errorf("look up the image %q: %w", name, err)
	case strings.ContainsAny(fingerprint, "/:. "):
		return nil, nil // no fingerprint looks so
	}
	img, _, err := p.server.with(ctx).GetImage(fingerprint)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the image %q: %w", name, err)
	}
	return &ProvisionImage{
		Fingerprint: img.Fingerprint, Version: img.Properties[provisionVersionKey], Description: img.Properties["description"],
		Managed: img.Properties[provisionKindKey] != "", Created: img.CreatedAt,
	}, nil
}

// KindBase is the kind of image that has our program as its first process.
const KindBase = "base"

// ImageProperties are the properties that an image of the given kind and recipe version carries. Those of a sandbox say that it has
// our program and the user pixel.
func ImageProperties(kind, version, osName, release string) map[string]string {
	properties := map[string]string{
		"description":       fmt.Sprintf("Pixels %s (%s %s)", kind, osName, release),
		"os":                osName,
		"release":           release,
		provisionKindKey:    kind,
		provisionVersionKey: version,
	}
	if kind != KindGateway {
		properties[programProperty], _ = guestbin.Path() // a build without it makes no image
		properties[userProperty] = "1000:1000:/home/pixel"
	}
	return properties
}

// AdoptImage points the alias name at an image of a kind and version that an interrupted set-up left without one, and tells whether
// there was any.
func (p *Provisioner) AdoptImage(ctx context.Context, kind, name, version string) (bool, error) {
	images, err := p.server.with(ctx).GetImages()
	if err != nil {
		return false, fmt.Errorf("list images: %w", err)
	}
	for _, img := range images {
		if img.Properties[provisionKindKey] == kind && img.Properties[provisionVersionKey] == version {
			return true, p.publishAs(ctx, kind, name, img.Fingerprint)
		}
	}
	return false, nil
}

// ImportImage uploads a split image (metadata tarball and squashfs) and makes it the one of its kind behind the alias name.
func (p *Provisioner) ImportImage(ctx context.Context, kind, name, metaPath, rootfsPath string) error {
	meta, err := os.Open(metaPath)
	if err != nil {
		return err
	}
	defer meta.Close()
	rootfs, err := os.Open(rootfsPath)
	if err != nil {
		return err
	}
	defer rootfs.Close()
	return p.importImage(ctx, kind, name, &client.ImageCreateArgs{
		MetaFile: meta, MetaName: "meta.tar.gz", RootfsFile: rootfs, RootfsName: "rootfs.squashfs", Type: "container",
	})
}

func (p *Provisioner) importImage(ctx context.Context, kind, name string, args *client.ImageCreateArgs) error {
	op, err := p.server.commit(ctx).CreateImage(api.ImagesPost{}, args)
	var ended *api.Operation
	if err == nil {
		ended, err = wait(ctx, p.server, op)
	}
	if err != nil {
		return fmt.Errorf("import the image: %w", err)
	}
	fingerprint, _ := ended.Metadata["fingerprint"].(string)
	if fingerprint == "" {
		return errors.New("import the image: Incus did not say under which fingerprint")
	}
	return p.publishAs(ctx, kind, name, fingerprint)
}

// publishAs moves the alias name to fingerprint, then deletes the older images of the kind: in this order, so that there is an
// image behind the alias at any time. A young one without an alias stays, since another set-up may be about to give it one.
func (p *Provisioner) publishAs(ctx context.Context, kind, name, fingerprint string) error {
	entry := api.ImageAliasesEntryPut{Target: fingerprint, Description: "Image of pixels"}
	before, etag, err := p.server.with(ctx).GetImageAlias(name)
	if missing(err) {
		before = &api.ImageAliasesEntry{}
		err = p.server.commit(ctx).CreateImageAlias(api.ImageAliasesPost{ImageAliasesEntry: api.ImageAliasesEntry{
			Name: name, Type: "container", ImageAliasesEntryPut: entry,
		}})
	} else if err == nil {
		err = p.server.commit(ctx).UpdateImageAlias(name, entry, etag)
	}
	if err != nil {
		return fmt.Errorf("point the alias %q at the new image: %w", name, err)
	}
	images, err := p.server.with(ctx).GetImages()
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, img := range images {
		// One with another alias belongs to another configuration.
		if img.Fingerprint == fingerprint || img.Properties[provisionKindKey] != kind || len(img.Aliases) > 0 {
			continue
		}
		if img.Fingerprint == before.Target || time.Since(img.UploadedAt) > time.Hour {
			if err := p.deleteImage(ctx, img.Fingerprint); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteImage removes one image; one that is gone already is no error.
func (p *Provisioner) deleteImage(ctx context.Context, fingerprint string) error {
	op, err := p.server.commit(ctx).DeleteImage(fingerprint)
	if err == nil {
		_, err = wait(ctx, p.server, op)
	}
	if err != nil && !missing(err) {
		return fmt.Errorf("delete image %.12s: %w", fingerprint, err)
	}
	return nil
}

// removeImages deletes the images of the project that carry our properties.
func (p *Provisioner) removeImages(ctx context.Context, removed func(string)) error {
	images, err := p.server.with(ctx).GetImages()
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	var errs []error
	for _, img := range images {
		if !ours(img.Properties) {
			continue
		}
		if err := p.deleteImage(ctx, img.Fingerprint); err != nil {
			errs = append(errs, err)
			continue
		}
		removed(fmt.Sprintf("image %.12s (%s)", img.Fingerprint, img.Properties["description"]))
	}
	return errors.Join(errs...)
}
