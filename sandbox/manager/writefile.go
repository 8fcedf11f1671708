package manager

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// WriteRequest asks for a file to be written.
type WriteRequest struct {
	Name, Path string
	Content    []byte
	Append     bool
	Mode       fs.FileMode // permissions; 0 keeps those of a file that is there, and gives a new one 0644
}

// WriteResult says what was written.
type WriteResult struct {
	Path    string
	Size    int64 // of the file now
	Created bool
}

// WriteFile writes a file, with the folders above it where they lack. One that is there is replaced at once, and keeps its
// owner and permissions; a new one belongs to DefaultUser.
func (m *Manager) WriteFile(ctx context.Context, caller Caller, r WriteRequest) (WriteResult, error) {
	c := m.begin(caller)
	switch {
	case len(r.Content) > maxWrite:
		return WriteResult{}, fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.CopyFiles}, "content has %d bytes, and %d are the most", len(r.Content), maxWrite)
	case r.Mode&^fs.ModePerm != 0:
		return WriteResult{}, fault.About(sandbox.ErrInvalid, "mode", "is invalid: give permissions, as 644 or 755")
	case strings.HasSuffix(r.Path, "/"):
		return WriteResult{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("path %s", sandbox.Quote(r.Path)), "is invalid: it names a folder; give the path of a file")
	}
	o, p, err := c.open(ctx, policy.Call{Verb: policy.VerbWriteFile, Owner: c.Owner, Sandbox: r.Name}, r.Name, r.Path)
	if err != nil {
		return WriteResult{}, err
	}
	defer o.Close()
	_, err = o.Stat(p)
	created := errors.Is(err, fs.ErrNotExist)
	if !created {
		if _, err := o.regular("write", p); err != nil {
			return WriteResult{}, err
		}
	} else if err := o.makeFolders(path.Dir(p)); err != nil {
		return WriteResult{}, fileError("write", p, err)
	}
	if err := o.write(p, r); err != nil {
		return WriteResult{}, fileError("write", p, err)
	}
	info, err := o.Stat(p)
	return WriteResult{p, info.Size, created}, fileError("write", p, err)
}

// write puts content into a file, by way of a new one that takes its place, so that nobody sees half of it.
func (o *opened) write(p string, r WriteRequest) error {
	real, err := o.RealPath(p)
	if err != nil {
		return err
	}
	mode, uid, gid := fs.FileMode(0o644), o.uid, o.gid
	if info, err := o.Stat(real); err == nil {
		mode, uid, gid = info.Mode.Perm(), info.UID, info.GID
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.Mode != 0 {
		mode = r.Mode
	}
	put := func(f io.WriteCloser, err error) error {
		if err != nil {
			return err
		}
		_, err = f.Write(r.Content)
		return errors.Join(err, f.Close())
	}
	if r.Append {
		return errors.Join(put(o.Append(real)), o.Chmod(real, mode), o.Chown(real, uid, gid))
	}
	part := path.Join(path.Dir(real), ".pixels-"+rand.Text())
	err = put(o.Create(part))
	if err == nil {
		err = errors.Join(o.Chmod(part, mode), o.Chown(part, uid, gid))
	}
	if err == nil {
		err = o.Rename(part, real)
	}
	if err != nil {
		_ = o.Remove(part) // it may never have been
	}
	return err
}
