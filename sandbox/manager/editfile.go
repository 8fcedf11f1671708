package manager

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"unicode/utf8"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// Bounds of what passes through this process.
const (
	maxEdit  = 16 << 20 // bytes of a file that is read by lines or edited
	maxImage = 4 << 20  // bytes of an image
	maxText  = 24_000   // bytes of one answer
	maxLines = 2000     // lines of one answer
	maxWrite = 16 << 20 // bytes of one write
)

// ReadRequest asks for a part of a file.
type ReadRequest struct {
	Name, Path    string
	Offset, Limit int  // lines, from 1 on; 0 means the first, and as many as fit
	Base64        bool // the bytes as they are; Offset and Limit then count bytes, from 0 on
}

// ReadResult is a part of a file.
type ReadResult struct {
	Path    string
	Size    int64
	Content string // text, or base64
	First   int    // line or byte that Content begins with
	Next    int    // Offset to read on from; 0 when this was the last part
	Lines   int    // of the whole file; 0 where bytes are read

	ImageType string // MIME type, when the file is an image: Image is then all of it, and Content is empty
	Image     []byte
}

// ReadFile reads a part of a text file, an image, or bytes.
func (m *Manager) ReadFile(ctx context.Context, caller Caller, r ReadRequest) (ReadResult, error) {
	c := m.begin(caller)
	if r.Offset < 0 || r.Limit < 0 {
		return ReadResult{}, fault.About(sandbox.ErrInvalid, "offset and limit", "are invalid: give numbers from 0 on")
	}
	o, p, err := c.open(ctx, policy.Call{Verb: policy.VerbReadFile, Owner: c.Owner, Sandbox: r.Name}, r.Name, r.Path)
	if err != nil {
		return ReadResult{}, err
	}
	defer o.Close()
	if r.Base64 {
		return o.readBytes(p, int64(r.Offset), r.Limit)
	}
	b, err := o.readAll("read", p, maxEdit)
	if err != nil {
		return ReadResult{}, err
	}
	out := ReadResult{Path: p, Size: int64(len(b))}
	if kind := http.DetectContentType(b); strings.HasPrefix(kind, "image/") && kind != "image/svg+xml" {
		if len(b) > maxImage {
			return out, fmt.Errorf("read %s: it is an image of %d bytes, which is %w: %d are the most; make it smaller with a tool inside", p, len(b), sandbox.ErrInvalid, maxImage)
		}
		out.ImageType, out.Image = kind, b
		return out, nil
	}
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return out, fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.ReadBytes}, "read %s: it is no text", p)
	}
	return out, out.lines(string(b), r)
}

// lines fills in the lines that were asked for, as many as fit.
func (out *ReadResult) lines(text string, r ReadRequest) error {
	var all []string
	for line := range strings.Lines(text) {
		all = append(all, line)
	}
	out.Lines, out.First = len(all), max(r.Offset, 1)
	if out.First > max(len(all), 1) {
		return fault.About(sandbox.ErrInvalid, fmt.Sprintf("offset %d", r.Offset), "is invalid: the file has %d lines", len(all))
	}
	limit := maxLines
	if r.Limit > 0 {
		limit = min(limit, r.Limit)
	}
	var b strings.Builder
	at := out.First - 1
	for ; at < len(all) && at-out.First+1 < limit; at++ {
		if b.Len()+len(all[at]) > maxText {
			if b.Len() > 0 {
				break
			}
			// A line that is longer than an answer: its beginning, and a way to the rest.
			fmt.Fprintf(&b, "%s\n[... line %d has %d bytes more; ask for the encoding base64 ...]\n", strings.ToValidUTF8(all[at][:maxText], ""), at+1, len(all[at])-maxText)
			at++
			break
		}
		b.WriteString(all[at])
	}
	out.Content = b.String()
	if at < len(all) {
		out.Next = at + 1
	}
	return nil
}

// readBytes reads bytes as base64.
func (o *opened) readBytes(p string, from int64, limit int) (ReadResult, error) {
	info, err := o.regular("read", p)
	if err != nil {
		return ReadResult{}, err
	}
	const most = maxText / 4 * 3
	if limit == 0 || limit > most {
		limit = most
	}
	f, err := o.Open(p)
	if err != nil {
		return ReadResult{}, fileError("read", p, err)
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return ReadResult{}, fileError("read", p, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)))
	if err != nil {
		return ReadResult{}, fileError("read", p, err)
	}
	out := ReadResult{Path: p, Size: info.Size, Content: base64.StdEncoding.EncodeToString(b), First: int(from)}
	if next := from + int64(len(b)); next < info.Size && len(b) > 0 {
		out.Next = int(next)
	}
	return out, nil
}

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

// EditRequest asks for text in a file to be replaced.
type EditRequest struct {
	Name, Path string
	Old, New   string
	All        bool // each occurrence; else there must be exactly one
}

// EditFile replaces text in a file, and returns how often.
func (m *Manager) EditFile(ctx context.Context, caller Caller, r EditRequest) (p string, replaced int, err error) {
	c := m.begin(caller)
	if r.Old == "" || r.Old == r.New {
		return "", 0, fault.Errorf(sandbox.ErrInvalid, fault.Hint{Action: fault.WriteFile}, "old_text is empty, or what new_text is: give the text to be replaced, and another one as new_text")
	}
	o, p, err := c.open(ctx, policy.Call{Verb: policy.VerbEditFile, Owner: c.Owner, Sandbox: r.Name}, r.Name, r.Path)
	if err != nil {
		return "", 0, err
	}
	defer o.Close()
	b, err := o.readAll("edit", p, maxEdit)
	if err != nil {
		return "", 0, err
	}
	replaced = bytes.Count(b, []byte(r.Old))
	switch {
	case replaced == 0:
		return "", 0, fault.Errorf(sandbox.ErrNotFound, fault.Hint{Action: fault.ReadFile}, "edit %s: old_text is %s in it: it must be the file's text exactly, with its blanks and line ends", p, sandbox.ErrNotFound)
	case replaced > 1 && !r.All:
		return "", 0, fmt.Errorf("edit %s: old_text is in it %d times, which is %w: give more of what is around it, or set replace_all", p, replaced, sandbox.ErrInvalid)
	}
	b = bytes.ReplaceAll(b, []byte(r.Old), []byte(r.New))
	return p, replaced, fileError("edit", p, o.write(p, WriteRequest{Content: b}))
}
