package setup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"pixels/incus"
)

const (
	cacheDir = "/var/cache/pixels"

	// cacheAge bounds how old the packages in a new image may be.
	cacheAge = 7 * 24 * time.Hour
)

// image makes the base image unless there is one of the current recipe.
func (j *job) image(ctx context.Context, p *incus.Provisioner) error {
	start := time.Now()
	name := p.Config().Image
	have, err := p.Image()
	if err != nil {
		return err
	}
	if have != nil && !have.Managed {
		j.had(start, "image %s (%s, not made by pixels and used as it is)", name, have.Description)
		return nil
	}
	r, err := currentRecipe(ctx)
	if err != nil {
		if have != nil {
			j.had(start, "image %s (%s), which can't be built anew here: %v", name, have.Description, err)
			return nil
		}
		return fmt.Errorf("base image: %w", err)
	}
	version := r.version()
	if have != nil && have.Version == version {
		j.had(start, "image %s (%s)", name, have.Description)
		return nil
	}
	if !j.root {
		if have == nil {
			return errors.New("base image: there is none, and building one takes root: sudo pixels-mcp setup")
		}
		j.had(start, "image %s (%s)", name, have.Description)
		j.note("the image is of another recipe; root would build it anew (sudo pixels-mcp setup)")
		return nil
	}
	how, err := j.makeImage(ctx, p, r)
	if err != nil {
		if have != nil && ctx.Err() == nil {
			j.had(start, "image %s (%s)", name, have.Description)
			j.warn("run `pixels-mcp setup` again when the mirror can be reached", "it is of an older recipe and could not be built anew: %v", err)
			return nil
		}
		return err
	}
	j.did(start, "image %s (%s %s, %s)", name, r.id, r.release, how)
	return nil
}

// makeImage tries the ways to a base image, the cheapest first, and says which one worked.
func (j *job) makeImage(ctx context.Context, p *incus.Provisioner, r recipe) (how string, err error) {
	version := r.version()
	if adopted, err := p.AdoptImage(ctx, version); err != nil {
		return "", err
	} else if adopted {
		return "imported by an earlier run", nil
	}
	cached := filepath.Join(cacheDir, "base-"+version+".squashfs")
	if st, err := os.Stat(cached); err == nil && time.Since(st.ModTime()) < cacheAge {
		if err := importImage(ctx, p, r, cached); err == nil {
			return "from " + cached, nil
		}
		_ = os.Remove(cached) // an import that failed says that the file is no good
	}
	if err := bootstrap(ctx, r, cached); err != nil {
		return "", fmt.Errorf("build the base image: %w", err)
	}
	return "built from the packages of " + r.codename, importImage(ctx, p, r, cached)
}

// importImage brings a squashfs root into Incus. A split image with squashfs was the fastest of the formats measured:
// packing, import and the first launch together took 1.4 s, against 2.4 s for a zstd tarball and 9.7 s for a gzip one.
func importImage(ctx context.Context, p *incus.Provisioner, r recipe, rootfs string) error {
	meta, err := os.CreateTemp("", "pixels-meta-*.tar.gz")
	if err != nil {
		return err
	}
	defer os.Remove(meta.Name())
	defer meta.Close()
	if err := writeMetadata(meta, r); err != nil {
		return fmt.Errorf("write the metadata of the base image: %w", err)
	}
	return p.ImportImage(ctx, meta.Name(), rootfs)
}

// writeMetadata writes the tarball that tells Incus what the image is, and to give each instance its own host name.
func writeMetadata(f *os.File, r recipe) error {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "architecture: %s\ncreation_date: %d\nproperties:\n", arch, time.Now().Unix())
	properties := incus.ImageProperties(r.version(), r.id, r.codename)
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&b, "  %s: %q\n", key, properties[key])
	}
	b.WriteString("templates:\n")
	files := map[string][]byte{}
	for path, content := range templates {
		name := filepath.Base(path) + ".tpl"
		fmt.Fprintf(&b, "  %s:\n    when: [create, copy]\n    template: %s\n", path, name)
		files["templates/"+name] = []byte(content)
	}
	files["metadata.yaml"] = b.Bytes()
	zip := gzip.NewWriter(f)
	archive := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			return err
		}
		if _, err := archive.Write(files[name]); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zip.Close())
}
