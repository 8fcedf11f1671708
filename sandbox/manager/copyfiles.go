package manager

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"pixels/internal/fault"
	"pixels/internal/units"
	"pixels/policy"
	"pixels/sandbox"
)

// CopyRequest asks for a file or folder to be copied between the host and a sandbox.
type CopyRequest struct {
	Name     string
	Out      bool   // from the sandbox to the host
	HostPath string // absolute, or below the first of the host's folders
	Path     string
	MaxBytes int64 // that may be written; 0 means as much as the sandbox's disk holds
	MaxFiles int   // with folders and links; 0 means DefaultCopyFiles
}

// Bounds of a copy that doesn't say its own.
const (
	DefaultCopyFiles = 100_000
	defaultCopyBytes = 10 << 30 // where the sandbox's disk has no limit
	// holesFactor is how much more than that files may have altogether: what is a hole is read, and not written.
	holesFactor = 8
)

// CopyResult says what was copied.
type CopyResult struct {
	HostPath, Path string
	Files          int
	Bytes          int64
	Skipped        []string // what is neither file, folder nor link, and links that lead out of what is copied
	SkippedMore    int      // that are not in Skipped
}

// maxSkipped bounds Skipped.
const maxSkipped = 50

// CopyFiles copies a file or a folder with all that is in it. Permissions and holes are kept, and what is there is written
// over. Links stay links; to the host none is copied that leads out of what is copied. In a sandbox what is new belongs to DefaultUser; on the host to the process. On the host nothing outside
// of the configured folders is touched, whatever links there say.
func (m *Manager) CopyFiles(ctx context.Context, caller Caller, r CopyRequest) (CopyResult, error) {
	c := m.begin(caller)
	folder, below, err := c.hostPath(c.Owner, r.HostPath)
	if err != nil {
		return CopyResult{}, err
	}
	o, p, err := c.open(ctx, policy.Call{Verb: policy.VerbCopyFiles, Owner: c.Owner, Sandbox: r.Name, Needs: policy.Needs{HostPath: filepath.Join(folder, below)}}, r.Name, r.Path)
	if err != nil {
		return CopyResult{}, err
	}
	defer o.Close()
	root, err := os.OpenRoot(folder)
	if err != nil {
		return CopyResult{}, fmt.Errorf("open the folder %s of this machine: %w", folder, err)
	}
	defer root.Close()
	if r.MaxBytes < 0 || r.MaxFiles < 0 {
		return CopyResult{}, fault.About(sandbox.ErrInvalid, "the bounds of the copy", "are invalid: give sizes and numbers above 0")
	}
	copy := copying{ctx: ctx, box: o, host: root, maxBytes: cmp.Or(r.MaxBytes, o.disk, defaultCopyBytes), maxFiles: cmp.Or(r.MaxFiles, DefaultCopyFiles), top: p, result: CopyResult{HostPath: filepath.Join(root.Name(), below), Path: p}}
	if r.Out {
		err = copy.out(p, below)
	} else {
		// As cp does: into a folder that is there.
		if info, e := o.Stat(p); e == nil && info.Mode.IsDir() && below != "." {
			if s, e := root.Stat(below); e == nil && !s.IsDir() || strings.HasSuffix(r.Path, "/") {
				p = path.Join(p, filepath.Base(below))
				copy.result.Path = p
			}
		}
		if err = o.makeFolders(path.Dir(p)); err == nil {
			err = copy.in(below, p, true)
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (%w)", err, sandbox.ErrNotFound)
	}
	if err != nil {
		err = fmt.Errorf("copy files, of which %d were copied: %w", copy.result.Files, err)
	}
	return copy.result, err
}

// hostPath finds which of the host's folders a path lies in. In none of them, the folder is the root, which the policy
// opens to nobody.
func (c *call) hostPath(owner, p string) (folder, below string, err error) {
	if p == "" || strings.ContainsRune(p, 0) {
		return "", "", fault.About(sandbox.ErrInvalid, fmt.Sprintf("host_path %s", sandbox.Quote(p)), "is invalid: give the path of a file or folder of this machine")
	}
	folders := c.rules(owner).HostFolders()
	if !filepath.IsAbs(p) && len(folders) > 0 {
		p = filepath.Join(folders[0], p)
	}
	p = filepath.Join("/", p)
	for _, folder := range folders {
		if below, err := filepath.Rel(folder, p); err == nil && filepath.IsLocal(below) {
			return folder, below, nil
		}
	}
	return "/", p, nil
}

// copying is one copy under way.
type copying struct {
	ctx      context.Context
	box      *opened
	host     *os.Root
	maxBytes int64
	maxFiles int
	read     int64 // bytes, holes among them
	written  int64
	entries  int    // files, folders and links
	top      string // what was named in the sandbox
	result   CopyResult
}

// tooMuch is the error of a copy that would be larger than it may.
func (c *copying) tooMuch() error {
	return fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "there is more than %s or %d files, which is invalid: copy a part of it, or set max_size or max_files", units.Size(c.maxBytes), c.maxFiles)
}

// counted counts a file, folder or link.
func (c *copying) counted() error {
	if c.entries++; c.entries > c.maxFiles {
		return c.tooMuch()
	}
	return c.ctx.Err()
}

// skip notes what is not copied, and why.
func (c *copying) skip(what, why string) {
	if len(c.result.Skipped) == maxSkipped {
		c.result.SkippedMore++
		return
	}
	c.result.Skipped = append(c.result.Skipped, sandbox.Shown(what)+" ("+why+")")
}

const noFile = "no file"

// in copies from the host. What was named may be a link, which is followed inside the host's folder.
func (c *copying) in(from, to string, asNamed bool) error {
	if err := c.counted(); err != nil {
		return err
	}
	look := c.host.Lstat
	if asNamed {
		look = c.host.Stat
	}
	info, err := look(from)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		return c.folderIn(from, to, info)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := c.host.Readlink(from)
		if err != nil {
			return err
		}
		if err := c.clear(to); err != nil {
			return err
		}
		c.result.Files++
		return named(to, c.box.Symlink(target, to))
	case !info.Mode().IsRegular():
		c.skip(from, noFile)
		return nil
	}
	source, err := c.host.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := c.clear(to); err != nil {
		return err
	}
	f, err := c.box.Create(to)
	if err != nil {
		return named(to, err)
	}
	_, err = c.copy(f, source)
	err = errors.Join(err, f.Close(), c.box.Chmod(to, info.Mode().Perm()), c.box.Chown(to, c.box.uid, c.box.gid), c.box.Chtimes(to, info.ModTime()))
	c.result.Files++
	return named(to, err)
}

func (c *copying) folderIn(from, to string, info fs.FileInfo) error {
	if err := c.box.makeFolders(to); err != nil {
		return named(to, err)
	}
	if err := c.box.Chmod(to, info.Mode().Perm()); err != nil {
		return named(to, err)
	}
	d, err := c.host.Open(from)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.in(filepath.Join(from, e.Name()), path.Join(to, e.Name()), false); err != nil {
			return err
		}
	}
	return nil
}

// clear takes a link away that lies where a file is to be written: the file must not be written to what it leads to.
func (c *copying) clear(p string) error {
	info, err := c.box.Lstat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return named(p, err)
	case info.Mode.IsDir():
		return fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "%s is a folder in the sandbox, and a file is to take its place, which is invalid", p)
	case info.Mode&fs.ModeSymlink != 0:
		return named(p, c.box.Remove(p))
	}
	return nil
}

// out copies to the host.
func (c *copying) out(from, to string) error {
	info, err := c.box.Stat(from) // what was named may be a link; what is below stays one
	if err != nil {
		return named(from, err)
	}
	if s, e := c.host.Stat(to); e == nil && s.IsDir() && !info.Mode.IsDir() {
		to = filepath.Join(to, path.Base(from))
		c.result.HostPath = filepath.Join(c.host.Name(), to)
	}
	if err := c.host.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return c.entryOut(from, to, info)
}

func (c *copying) entryOut(from, to string, info sandbox.FileInfo) error {
	if err := c.counted(); err != nil {
		return err
	}
	// A link on the host where a file is to be written is taken away, not followed.
	if s, err := c.host.Lstat(to); err == nil && s.Mode()&fs.ModeSymlink != 0 && to != "." {
		if err := c.host.Remove(to); err != nil {
			return err
		}
	}
	switch {
	case info.Mode.IsDir():
		if err := c.host.MkdirAll(to, 0o755); err != nil {
			return err
		}
		entries, err := c.box.ReadDir(from)
		if err != nil {
			return named(from, err)
		}
		for _, e := range entries {
			if !filepath.IsLocal(e.Name) || strings.ContainsAny(e.Name, `/\`) {
				c.skip(path.Join(from, e.Name), "a name that this machine can't have")
				continue
			}
			if err := c.entryOut(path.Join(from, e.Name), filepath.Join(to, e.Name), e); err != nil {
				return err
			}
		}
		if to == "." {
			return nil
		}
		return c.host.Chmod(to, info.Mode.Perm()|0o700) // or the next copy could not write to it
	case info.Mode&fs.ModeSymlink != 0:
		target, err := c.box.ReadLink(from)
		if err != nil {
			return named(from, err)
		}
		if !staysIn(c.top, from, target) {
			c.skip(from, "a link that leads out of what is copied, to "+sandbox.Shown(target))
			return nil
		}
		_ = c.host.Remove(to) // a file that is there; what it can't remove shows next
		c.result.Files++
		return c.host.Symlink(target, to)
	case !info.Mode.IsRegular():
		c.skip(from, noFile)
		return nil
	}
	source, err := c.box.Open(from)
	if err != nil {
		return named(from, err)
	}
	defer source.Close()
	f, err := c.host.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := c.copy(f, source)
	if err == nil && n < info.Size {
		err = fmt.Errorf("of %d bytes %d came", info.Size, n)
	}
	err = errors.Join(err, f.Chmod(info.Mode.Perm()), f.Close(), c.host.Chtimes(to, info.Modified, info.Modified))
	c.result.Files++
	return named(from, err)
}

// How much is looked at for a hole at once, in bytes, and how much is read at once, which files of a sandbox make several
// requests of.
const (
	block = 64 << 10
	chunk = 1 << 20
)

var zeros [block]byte

// copy copies one file within the bounds, and leaves holes where the source has zeros. It returns how long the file is.
func (c *copying) copy(to io.Writer, from io.Reader) (n int64, err error) {
	seek, sparse := to.(io.Seeker)
	truncate, ok := to.(interface{ Truncate(size int64) error })
	sparse = sparse && ok
	defer func() { c.result.Bytes += n }()
	buffer := make([]byte, chunk)
	hole := false
	for {
		if err := c.ctx.Err(); err != nil {
			return n, err
		}
		got, err := io.ReadFull(from, buffer)
		c.read += int64(got)
		if c.read/holesFactor > c.maxBytes {
			return n, c.tooMuch()
		}
		for part := range slices.Chunk(buffer[:got], block) {
			if hole = sparse && bytes.Equal(part, zeros[:len(part)]); hole {
				if _, e := seek.Seek(int64(len(part)), io.SeekCurrent); e != nil {
					return n, e
				}
			} else {
				if c.written += int64(len(part)); c.written > c.maxBytes {
					return n, c.tooMuch()
				}
				if _, e := to.Write(part); e != nil {
					return n, e
				}
			}
			n += int64(len(part))
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if hole {
				return n, truncate.Truncate(n)
			}
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// staysIn tells whether a link in the sandbox leads to what is below the folder that is copied, wherever it is copied to.
// Its steps up come first: after a name, which may be a link, a step up leads nobody knows where.
func staysIn(top, link, target string) bool {
	if target == "" || path.IsAbs(target) || link == top {
		return false
	}
	up, names := 0, false
	for _, part := range strings.Split(target, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			if names {
				return false
			}
			up++
		default:
			names = true
		}
	}
	below := strings.TrimPrefix(strings.TrimPrefix(link, top), "/")
	return up <= strings.Count(below, "/")
}

// named says which file of the sandbox an error is about.
func named(p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s in the sandbox: %w", sandbox.Shown(p), err)
}
