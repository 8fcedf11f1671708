package sandbox

import (
	"context"
	"io"
	"io/fs"
	"time"
)

// Files is the file system of a sandbox, with the rights of root in it. Paths are absolute; links are followed inside the
// sandbox and never lead out. Errors wrap fs.ErrNotExist, fs.ErrExist and the like. It may be used by one goroutine at a
// time, and must be closed.
type Files interface {
	Stat(path string) (FileInfo, error)      // follows links
	Lstat(path string) (FileInfo, error)     // does not
	RealPath(path string) (string, error)    // without links; the last part need not exist
	ReadDir(path string) ([]FileInfo, error) // in any order; ErrInvalid for one with more than can be listed
	ReadLink(path string) (string, error)
	Open(path string) (io.ReadSeekCloser, error)
	Create(path string) (io.WriteCloser, error) // empties one that is there
	Append(path string) (io.WriteCloser, error) // makes one that isn't there
	Mkdir(path string) error
	Symlink(target, path string) error
	Rename(from, to string) error // over what is there
	Remove(path string) error     // a file, a link or an empty folder
	Chmod(path string, mode fs.FileMode) error
	Chown(path string, uid, gid uint32) error // not of what a link leads to, but for the last part
	Chtimes(path string, modified time.Time) error
	Close() error
}

// FileInfo is what is known of a file.
type FileInfo struct {
	Name     string // the last part of its path
	Size     int64
	Mode     fs.FileMode
	Modified time.Time
	UID, GID uint32
}

// FilesBackend is what the Manager needs of a Backend for files.
type FilesBackend interface {
	// OpenFiles opens the file system of a sandbox, which may be stopped or paused.
	OpenFiles(ctx context.Context, id string) (Files, error)
	// Account returns the numbers of a user of a sandbox by name, and its home; ErrNotFound.
	Account(ctx context.Context, id, user string) (uid, gid uint32, home string, err error)
}
