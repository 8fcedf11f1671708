package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// Bounds of a list of files.
const (
	DefaultFilesLimit = 200
	MaxFilesLimit     = 1000
	MaxDepth          = 20
	maxWalked         = 100_000 // entries looked at for one answer
)

// FilesRequest asks for what is in a folder.
type FilesRequest struct {
	Name, Path string
	Depth      int    // 0 means 1: the folder's own entries
	Glob       string // only those whose path below the folder matches, ** for any folders
	Limit      int    // 0 means DefaultFilesLimit
	After      string // path below the folder after which to begin: Next of the page before
}

// FileEntry is one entry.
type FileEntry struct {
	Path     string    `json:"path" jsonschema:"below the folder"`
	Type     string    `json:"type" jsonschema:"file, folder, link or other"`
	Size     int64     `json:"size" jsonschema:"bytes of a file"`
	Mode     string    `json:"mode" jsonschema:"permissions in octal"`
	Owner    string    `json:"owner" jsonschema:"numbers of user and group"`
	Modified time.Time `json:"modified"`
	Target   string    `json:"target,omitempty" jsonschema:"of a link"`
}

// FilesPage is a part of a list.
type FilesPage struct {
	Path    string
	Entries []FileEntry // a folder before what is in it
	Next    string      // not empty when there are more
}

// errEnough ends a walk that has what it needs.
var errEnough = errors.New("enough")

// ListFiles lists a folder. Links are shown and not followed, but for the folder itself.
func (m *Manager) ListFiles(ctx context.Context, caller Caller, r FilesRequest) (FilesPage, error) {
	c := m.begin(caller)
	depth, limit := max(r.Depth, 1), r.Limit
	if limit == 0 {
		limit = DefaultFilesLimit
	}
	switch {
	case r.Depth < 0 || r.Depth > MaxDepth:
		return FilesPage{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("depth %d", r.Depth), "is invalid: give 1 to %d", MaxDepth)
	case limit < 1 || limit > MaxFilesLimit:
		return FilesPage{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("limit %d", r.Limit), "is invalid: give 1 to %d", MaxFilesLimit)
	case !doublestar.ValidatePattern(r.Glob):
		return FilesPage{}, fault.About(sandbox.ErrInvalid, fmt.Sprintf("glob %s", sandbox.Quote(r.Glob)), "is invalid: write it as *.go or src/**/*.go")
	}
	if r.Glob != "" && r.Depth == 0 {
		depth = strings.Count(r.Glob, "/") + 1
		if strings.Contains(r.Glob, "**") {
			depth = MaxDepth
		}
	}
	o, p, err := c.open(ctx, policy.Call{Verb: policy.VerbListFiles, Owner: c.Owner, Sandbox: r.Name}, r.Name, r.Path)
	if err != nil {
		return FilesPage{}, err
	}
	defer o.Close()
	info, err := o.Stat(p)
	if err != nil {
		return FilesPage{}, fileError("list", p, err)
	}
	if !info.Mode.IsDir() {
		return FilesPage{}, fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.ReadFile}, "list %s: it is no folder", p)
	}
	page := FilesPage{Path: p, Entries: []FileEntry{}}
	walked := 0
	err = o.walk(ctx, p, "", depth, func(below string, info sandbox.FileInfo) error {
		if walked++; walked > maxWalked {
			return fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.RunInside, Value: "find"}, "there are more than %d entries below it, and that are too many to list: name a folder further down", maxWalked)
		}
		if !after(below, r.After) {
			return nil
		}
		if r.Glob != "" {
			if ok, _ := doublestar.Match(r.Glob, below); !ok {
				return nil
			}
		}
		if len(page.Entries) == limit {
			page.Next = page.Entries[limit-1].Path
			return errEnough
		}
		page.Entries = append(page.Entries, o.entry(path.Join(p, below), below, info))
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return page, fileError("list", p, err)
}

// after tells whether a path comes after another one in the order of a walk.
func after(p, mark string) bool {
	return mark == "" || slices.Compare(strings.Split(p, "/"), strings.Split(mark, "/")) > 0
}

// walk visits what is below a folder, by name, a folder before what is in it. What vanishes meanwhile is left out.
func (o *opened) walk(ctx context.Context, folder, below string, depth int, visit func(below string, info sandbox.FileInfo) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := o.ReadDir(folder)
	if err != nil {
		if below != "" && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	slices.SortFunc(entries, func(a, b sandbox.FileInfo) int { return cmp.Compare(a.Name, b.Name) })
	for _, e := range entries {
		inside := path.Join(below, e.Name)
		if err := visit(inside, e); err != nil {
			return err
		}
		if e.Mode.IsDir() && depth > 1 {
			if err := o.walk(ctx, path.Join(folder, e.Name), inside, depth-1, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry describes one file.
func (o *opened) entry(p, below string, info sandbox.FileInfo) FileEntry {
	e := FileEntry{
		Path: below, Type: "other", Mode: fmt.Sprintf("%04o", unixMode(info.Mode)), Modified: info.Modified.UTC(),
		Owner: fmt.Sprintf("%d:%d", info.UID, info.GID),
	}
	switch {
	case info.Mode.IsDir():
		e.Type = "folder"
	case info.Mode.IsRegular():
		e.Type, e.Size = "file", info.Size
	case info.Mode&fs.ModeSymlink != 0:
		e.Type = "link"
		e.Target, _ = o.ReadLink(p) // it may be gone
	}
	return e
}

// unixMode is a mode's permissions with the three bits that Go keeps elsewhere.
func unixMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}
