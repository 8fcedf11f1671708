package incus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// OpenFiles implements sandbox.Backend by Incus's SFTP server, which runs inside the instance's own view of its files: a
// link can't lead out of that.
func (b *Backend) OpenFiles(ctx context.Context, id string) (sandbox.Files, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := b.server.sftp(ctx, id)
	if err != nil {
		return nil, b.failed(err, "open the files of the sandbox")
	}
	// Packets of the protocol's own size: Incus's client asks for 128 KiB, of which a server of 6.0.4 answers 32 without a
	// word, and a quarter of the file arrives.
	bounded := &allowance{from: conn}
	bounded.left.Store(1 << 62)
	client, err := sftp.NewClientPipe(bounded, conn)
	if err != nil {
		_ = conn.Close()
		return nil, b.failed(err, "open the files of the sandbox")
	}
	// What is under way when ctx ends fails with the connection.
	return &files{client, context.AfterFunc(ctx, func() { _ = conn.Close() }), conn, bounded}, nil
}

// allowance reads so many bytes more, and no further.
type allowance struct {
	from io.Reader
	left atomic.Int64
}

// Read implements io.Reader.
func (a *allowance) Read(p []byte) (int, error) {
	n, err := a.from.Read(p)
	if a.left.Add(-int64(n)) < 0 {
		return 0, errors.New("more came than may")
	}
	return n, err
}

// maxListing bounds what a folder's entries may take on their way, in bytes: with names of usual length some hundred
// thousand of them.
const maxListing = 16 << 20

// Account implements sandbox.Backend.
func (b *Backend) Account(ctx context.Context, id, user string) (uid, gid uint32, home string, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, "", err
	}
	k, err := b.cache.instance(ctx, id)
	if err != nil {
		return 0, 0, "", b.failed(err, "look up user %s", user)
	}
	if k == nil {
		return 0, 0, "", fault.About(sandbox.ErrNotFound, fmt.Sprintf("instance %s", id), "")
	}
	who, err := b.account(ctx, &k.Instance, user)
	return who.uid, who.gid, who.home, b.failed(err, "look up user %s", user)
}

// files is the file system of an instance.
type files struct {
	sftp    *sftp.Client
	forget  func() bool
	conn    io.Closer
	bounded *allowance
}

var _ sandbox.Files = (*files)(nil)

func describeFile(info fs.FileInfo, err error) (sandbox.FileInfo, error) {
	if err != nil {
		return sandbox.FileInfo{}, inOwnWords(err)
	}
	out := sandbox.FileInfo{Name: info.Name(), Size: info.Size(), Mode: info.Mode(), Modified: info.ModTime()}
	if stat, ok := info.Sys().(*sftp.FileStat); ok {
		out.UID, out.GID = stat.UID, stat.GID
	}
	return out, nil
}

// Stat implements sandbox.Files.
func (f *files) Stat(p string) (sandbox.FileInfo, error) { return describeFile(f.sftp.Stat(p)) }

// Lstat implements sandbox.Files.
func (f *files) Lstat(p string) (sandbox.FileInfo, error) { return describeFile(f.sftp.Lstat(p)) }

// RealPath implements sandbox.Files. The server's own answer cleans a path and follows no link.
func (f *files) RealPath(p string) (string, error) {
	for range 40 {
		info, err := f.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode&fs.ModeSymlink == 0 {
			return p, nil
		}
		if err != nil {
			return "", err
		}
		target, err := f.ReadLink(p)
		if err != nil {
			return "", err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(p), target)
		}
		p = target
	}
	return "", unix.ELOOP
}

// ReadDir implements sandbox.Files.
func (f *files) ReadDir(p string) ([]sandbox.FileInfo, error) {
	f.bounded.left.Store(maxListing)
	list, err := f.sftp.ReadDir(p)
	if over := f.bounded.left.Swap(1<<62) < 0; over {
		return nil, fault.Errorf(fault.Invalid, fault.Hint{Action: fault.RunInside, Value: "find"}, "%s has more entries than can be listed", p)
	}
	out := make([]sandbox.FileInfo, 0, len(list))
	for _, info := range list {
		d, _ := describeFile(info, nil)
		out = append(out, d)
	}
	return out, inOwnWords(err)
}

// ReadLink implements sandbox.Files.
func (f *files) ReadLink(p string) (string, error) {
	to, err := f.sftp.ReadLink(p)
	return to, inOwnWords(err)
}

// file is an open one, whose errors are in words of ours. It keeps the ways of the file server to copy quickly.
type file struct{ *sftp.File }

func (f file) Read(p []byte) (int, error)  { n, err := f.File.Read(p); return n, inOwnWords(err) }
func (f file) Write(p []byte) (int, error) { n, err := f.File.Write(p); return n, inOwnWords(err) }
func (f file) WriteTo(w io.Writer) (int64, error) {
	n, err := f.File.WriteTo(w)
	return n, inOwnWords(err)
}
func (f file) ReadFrom(r io.Reader) (int64, error) {
	n, err := f.File.ReadFrom(r)
	return n, inOwnWords(err)
}
func (f file) Seek(to int64, from int) (int64, error) {
	n, err := f.File.Seek(to, from)
	return n, inOwnWords(err)
}
func (f file) Close() error { return inOwnWords(f.File.Close()) }

// openedFile is a file that was opened.
func openedFile(f *sftp.File, err error) (file, error) { return file{f}, inOwnWords(err) }

// Open implements sandbox.Files.
func (f *files) Open(p string) (io.ReadSeekCloser, error) { return openedFile(f.sftp.Open(p)) }

// Create implements sandbox.Files.
func (f *files) Create(p string) (io.WriteCloser, error) {
	return openedFile(f.sftp.OpenFile(p, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC))
}

// Append implements sandbox.Files. Not all servers append by themselves: it begins where the file ends.
func (f *files) Append(p string) (io.WriteCloser, error) {
	file, err := openedFile(f.sftp.OpenFile(p, unix.O_WRONLY|unix.O_CREAT))
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Mkdir implements sandbox.Files.
func (f *files) Mkdir(p string) error { return inOwnWords(f.sftp.Mkdir(p)) }

// Symlink implements sandbox.Files.
func (f *files) Symlink(target, p string) error { return inOwnWords(f.sftp.Symlink(target, p)) }

// Rename implements sandbox.Files.
func (f *files) Rename(from, to string) error { return inOwnWords(f.sftp.PosixRename(from, to)) }

// Remove implements sandbox.Files.
func (f *files) Remove(p string) error { return inOwnWords(f.sftp.Remove(p)) }

// Chmod implements sandbox.Files.
func (f *files) Chmod(p string, mode fs.FileMode) error { return inOwnWords(f.sftp.Chmod(p, mode)) }

// Chown implements sandbox.Files.
func (f *files) Chown(p string, uid, gid uint32) error {
	return inOwnWords(f.sftp.Chown(p, int(uid), int(gid)))
}

// Chtimes implements sandbox.Files.
func (f *files) Chtimes(p string, modified time.Time) error {
	return inOwnWords(f.sftp.Chtimes(p, modified, modified))
}

// Close implements sandbox.Files.
func (f *files) Close() error {
	f.forget()
	err := f.sftp.Close()
	_ = f.conn.Close() // a second time
	return err
}
