package manager

import (
	"context"
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

// opened is the file system of a sandbox, with whom new files belong to.
type opened struct {
	sandbox.Files
	uid, gid uint32
	home     string
	disk     int64 // of the sandbox, in bytes; 0 is no limit
}

// open opens the files of a sandbox for a call, and tells which file a caller means: a relative path begins at DefaultUser's home.
func (c *call) open(ctx context.Context, call policy.Call, name, p string) (*opened, string, error) {
	if p == "" || strings.ContainsRune(p, 0) || len(p) > 4096 {
		return nil, "", fault.About(sandbox.ErrInvalid, fmt.Sprintf("path %s", sandbox.Quote(p)), "is invalid: give the path of a file in the sandbox")
	}
	b, s, err := c.vetted(ctx, call, name)
	if err != nil {
		return nil, "", err
	}
	done, err := c.use(ctx, b, s)
	if err != nil {
		return nil, "", err
	}
	defer done()
	o := &opened{disk: s.Limits.Disk}
	if o.uid, o.gid, o.home, err = b.Account(ctx, s.ID, sandbox.DefaultUser); err != nil {
		return nil, "", err
	}
	if o.Files, err = b.OpenFiles(ctx, s.ID); err != nil {
		return nil, "", err
	}
	if p == "~" || strings.HasPrefix(p, "~/") {
		p = "." + p[1:]
	}
	if !path.IsAbs(p) {
		p = path.Join(o.home, p)
	}
	return o, path.Clean(p), nil
}

// fileError gives an error of a file system the meaning that callers ask for, and says what was tried on which path.
func fileError(what, p string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fault.Errorf(sandbox.ErrNotFound, fault.Hint{Action: fault.ListFiles}, "%s %s: %s: there is no such file or folder in the sandbox", what, p, sandbox.ErrNotFound)
	case errors.Is(err, fs.ErrExist):
		return fault.Errorf(sandbox.ErrExists, fault.Hint{}, "%s %s: it already exists", what, p)
	}
	return fmt.Errorf("%s %s: %w", what, p, err)
}

// regular refuses what is no file, and says what it is.
func (o *opened) regular(what, p string) (sandbox.FileInfo, error) {
	info, err := o.Stat(p)
	if err != nil {
		return info, fileError(what, p, err)
	}
	if info.Mode.IsDir() {
		return info, fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.ListFiles}, "%s %s: it is a folder", what, p)
	}
	if !info.Mode.IsRegular() {
		return info, fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "%s %s: it is no ordinary file, which is invalid here", what, p)
	}
	return info, nil
}

// makeFolders makes a folder with those above it; new ones belong to DefaultUser.
func (o *opened) makeFolders(p string) error {
	info, err := o.Stat(p)
	if err == nil && !info.Mode.IsDir() {
		return fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "%s is no folder, which is invalid here", p)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p != "/" {
		if err := o.makeFolders(path.Dir(p)); err != nil {
			return err
		}
	}
	if err := o.Mkdir(p); err != nil {
		if info, e := o.Stat(p); e == nil && info.Mode.IsDir() {
			return nil // someone else made it
		}
		return err
	}
	return errors.Join(o.Chmod(p, 0o755), o.Chown(p, o.uid, o.gid))
}

// readAll reads a file of up to most bytes.
func (o *opened) readAll(what, p string, most int64) ([]byte, error) {
	info, err := o.regular(what, p)
	if err != nil {
		return nil, err
	}
	if info.Size > most {
		return nil, fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.RunInside, Value: "a tool inside"}, "%s %s: it has %d bytes, and %d are the most", what, p, info.Size, most)
	}
	f, err := o.Open(p)
	if err != nil {
		return nil, fileError(what, p, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("it grew over %d bytes meanwhile", most)
	}
	return b, fileError(what, p, err)
}

// Bounds of what passes through this process.
const (
	maxEdit  = 16 << 20  // bytes of a file that is read by lines or edited
	maxImage = 700 << 10 // bytes of an image, which take a third more in an answer
	maxText  = 24_000    // bytes of one answer
	maxLines = 2000      // lines of one answer
	maxWrite = 16 << 20  // bytes of one write
)
