package sandboxtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"pixels/sandbox"
)

// files is the file system of a box.
type files struct {
	mu   sync.Mutex
	root *node
}

type node struct {
	mode     fs.FileMode
	uid, gid uint32
	modified time.Time
	data     []byte
	target   string           // of a link
	children map[string]*node // of a folder
}

func newFolder(mode fs.FileMode, uid uint32) *node {
	return &node{mode: mode | fs.ModeDir, uid: uid, gid: uid, modified: time.Now(), children: map[string]*node{}}
}

// newFiles returns what an image has.
func newFiles() *files {
	root := newFolder(0o755, 0)
	home := newFolder(0o755, 0)
	home.children["pixel"] = newFolder(0o755, 1000)
	root.children = map[string]*node{
		"home": home, "root": newFolder(0o700, 0), "tmp": newFolder(0o777|fs.ModeSticky, 0), "usr": newFolder(0o755, 0), "etc": newFolder(0o755, 0),
	}
	root.children["etc"].children["hostname"] = &node{mode: 0o644, modified: time.Now()}
	return &files{root: root}
}

func (n *node) clone() *node {
	c := *n
	c.data = bytes.Clone(n.data)
	c.children = maps.Clone(n.children)
	for name, child := range c.children {
		c.children[name] = child.clone()
	}
	return &c
}

func (f *files) clone() *files {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &files{root: f.root.clone()}
}

func pathError(op, p string, err error) error { return &fs.PathError{Op: op, Path: p, Err: err} }

// resolve returns the path without links. The last part need not exist, and is followed only when last is set.
func (f *files) resolve(p string, last bool) (string, error) {
	done, rest, links := "/", strings.Split(strings.Trim(path.Clean("/"+p), "/"), "/"), 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		n := f.at(next)
		if n == nil && len(rest) > 0 {
			return "", pathError("open", p, fs.ErrNotExist)
		}
		if n == nil || n.mode&fs.ModeSymlink == 0 || len(rest) == 0 && !last {
			done = next
			continue
		}
		if links++; links > 40 {
			return "", pathError("open", p, syscall.ELOOP)
		}
		if path.IsAbs(n.target) {
			done = "/"
		}
		rest = append(strings.Split(strings.Trim(n.target, "/"), "/"), rest...)
	}
	return done, nil
}

// at returns what lies at a path without links, or nil.
func (f *files) at(p string) *node {
	n := f.root
	for _, part := range strings.Split(strings.Trim(p, "/"), "/") {
		if part != "" && n != nil {
			n = n.children[part]
		}
	}
	return n
}

// look returns what lies at a path.
func (f *files) look(p string, last bool) (*node, error) {
	real, err := f.resolve(p, last)
	if err != nil {
		return nil, err
	}
	if n := f.at(real); n != nil {
		return n, nil
	}
	return nil, pathError("open", p, fs.ErrNotExist)
}

// put puts a node at a path, in a folder that is there.
func (f *files) put(op, p string, n *node, over bool) error {
	real, err := f.resolve(p, over && n.mode.IsRegular())
	if err != nil {
		return err
	}
	folder := f.at(path.Dir(real))
	if folder == nil || !folder.mode.IsDir() {
		return pathError(op, p, fs.ErrNotExist)
	}
	if have := folder.children[path.Base(real)]; have != nil && (!over || have.mode.IsDir()) || real == "/" {
		return pathError(op, p, fs.ErrExist)
	}
	folder.children[path.Base(real)] = n
	return nil
}

func (n *node) info(name string) sandbox.FileInfo {
	return sandbox.FileInfo{Name: name, Size: int64(len(n.data)), Mode: n.mode, Modified: n.modified, UID: n.uid, GID: n.gid}
}

// handle is an open file, read from and written to at its own place.
type handle struct {
	files  *files
	node   *node
	at     int64
	append bool
}

func (h *handle) Read(b []byte) (int, error) {
	h.files.mu.Lock()
	defer h.files.mu.Unlock()
	if h.at >= int64(len(h.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.node.data[h.at:])
	h.at += int64(n)
	return n, nil
}

func (h *handle) Write(b []byte) (int, error) {
	h.files.mu.Lock()
	defer h.files.mu.Unlock()
	if h.append {
		h.at = int64(len(h.node.data))
	}
	if end := h.at + int64(len(b)); end > int64(len(h.node.data)) {
		h.node.data = append(h.node.data, make([]byte, end-int64(len(h.node.data)))...)
	}
	h.at += int64(copy(h.node.data[h.at:], b))
	h.node.modified = time.Now()
	return len(b), nil
}

func (h *handle) Seek(offset int64, whence int) (int64, error) {
	h.files.mu.Lock()
	defer h.files.mu.Unlock()
	h.at = map[int]int64{io.SeekStart: 0, io.SeekCurrent: h.at, io.SeekEnd: int64(len(h.node.data))}[whence] + offset
	return h.at, nil
}

func (h *handle) Close() error { return nil }

// filesView is files as sandbox.Files has it.
type filesView struct{ *files }

var _ sandbox.Files = filesView{}

// OpenFiles implements sandbox.Backend.
func (m *Memory) OpenFiles(ctx context.Context, id string) (sandbox.Files, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(id)
	if err != nil {
		return nil, err
	}
	return filesView{b.files}, ctx.Err()
}

// Account implements sandbox.Backend.
func (m *Memory) Account(ctx context.Context, id, user string) (uid, gid uint32, home string, err error) {
	switch user {
	case sandbox.DefaultUser:
		return 1000, 1000, "/home/pixel", ctx.Err()
	case "root":
		return 0, 0, "/root", ctx.Err()
	}
	return 0, 0, "", fmt.Errorf("user %q %w", user, sandbox.ErrNotFound)
}

func (v filesView) stat(p string, last bool) (sandbox.FileInfo, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.look(p, last)
	if err != nil {
		return sandbox.FileInfo{}, err
	}
	return n.info(path.Base(p)), nil
}

func (v filesView) Stat(p string) (sandbox.FileInfo, error)  { return v.stat(p, true) }
func (v filesView) Lstat(p string) (sandbox.FileInfo, error) { return v.stat(p, false) }

func (v filesView) RealPath(p string) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.resolve(p, true)
}

func (v filesView) ReadDir(p string) ([]sandbox.FileInfo, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.look(p, true)
	if err != nil {
		return nil, err
	}
	var out []sandbox.FileInfo
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		out = append(out, n.children[name].info(name))
	}
	return out, nil
}

func (v filesView) ReadLink(p string) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.look(p, false)
	if err != nil {
		return "", err
	}
	return n.target, nil
}

// open opens a file, and makes one where create is set.
func (f *files) open(p string, create, truncate, appending bool, uid uint32) (*handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.look(p, true)
	switch {
	case err != nil && !create:
		return nil, err
	case err != nil:
		n = &node{mode: 0o644, uid: uid, gid: uid, modified: time.Now()}
		if err := f.put("open", p, n, true); err != nil {
			return nil, err
		}
	case n.mode.IsDir():
		return nil, pathError("open", p, syscall.EISDIR)
	case truncate:
		n.data = nil
	}
	return &handle{files: f, node: n, append: appending}, nil
}

func (v filesView) Open(p string) (io.ReadSeekCloser, error) {
	return v.open(p, false, false, false, 0)
}
func (v filesView) Create(p string) (io.WriteCloser, error) { return v.open(p, true, true, false, 0) }
func (v filesView) Append(p string) (io.WriteCloser, error) { return v.open(p, true, false, true, 0) }
func (v filesView) Mkdir(p string) error                    { return v.add("mkdir", p, newFolder(0o755, 0)) }
func (v filesView) Chmod(p string, mode fs.FileMode) error {
	return v.change(p, func(n *node) { n.mode = n.mode&^fs.ModePerm | mode.Perm() })
}
func (v filesView) Chown(p string, uid, gid uint32) error {
	return v.change(p, func(n *node) { n.uid, n.gid = uid, gid })
}
func (v filesView) Chtimes(p string, modified time.Time) error {
	return v.change(p, func(n *node) { n.modified = modified })
}
func (v filesView) Close() error { return nil }

func (v filesView) Symlink(target, p string) error {
	return v.add("symlink", p, &node{mode: fs.ModeSymlink | 0o777, target: target, modified: time.Now()})
}

func (v filesView) add(op, p string, n *node) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.put(op, p, n, false)
}

func (v filesView) change(p string, do func(*node)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.look(p, true)
	if err == nil {
		do(n)
	}
	return err
}

func (v filesView) Rename(from, to string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.look(from, false)
	if err != nil {
		return err
	}
	real, err := v.resolve(from, false)
	if err != nil {
		return err
	}
	if err := v.put("rename", to, n, true); err != nil {
		return err
	}
	delete(v.at(path.Dir(real)).children, path.Base(real))
	return nil
}

func (v filesView) Remove(p string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.look(p, false)
	if err != nil {
		return err
	}
	if len(n.children) > 0 {
		return pathError("remove", p, syscall.ENOTEMPTY)
	}
	real, err := v.resolve(p, false)
	if err == nil {
		delete(v.at(path.Dir(real)).children, path.Base(real))
	}
	return err
}
