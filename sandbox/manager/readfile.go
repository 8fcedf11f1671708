package manager

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
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
			return out, fault.Errorf(sandbox.ErrInvalid, fault.Hint{}, "read %s: it is an image of %d bytes, which is invalid: %d are the most; make it smaller with a tool inside", p, len(b), maxImage)
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
