package tools

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// encoding is how the content of a file is given.
type encoding string

const base64Encoding encoding = "base64"

type readInput struct {
	Name     string   `json:"name"`
	Path     string   `json:"path" jsonschema:"absolute, or below the home of pixel"`
	Offset   int      `json:"offset,omitempty" jsonschema:"line to begin with, from 1; with base64 the byte, from 0"`
	Limit    int      `json:"limit,omitempty" jsonschema:"lines at most, or bytes; as many as fit when left out"`
	Encoding encoding `json:"encoding,omitempty" jsonschema:"base64 for the bytes of any file; text when left out"`
}

type readOutput struct {
	Path       string `json:"path"`
	Content    string `json:"content"`
	Size       int64  `json:"size" jsonschema:"bytes of the whole file"`
	FirstLine  int    `json:"first_line,omitempty"`
	Lines      int    `json:"lines,omitempty" jsonschema:"of the whole file"`
	NextOffset int    `json:"next_offset,omitempty" jsonschema:"there is more: give it as offset"`
	ImageType  string `json:"image_type,omitempty" jsonschema:"it is an image, which comes as image content"`
}

var readFile = define(Tool{
	Verb: policy.VerbReadFile, Title: "Read a file", Wakes: true, ReadOnly: true, Idempotent: true,
	Description: "Reads a text file of a sandbox, by lines when it is long, or shows an image. Works on stopped and paused sandboxes too.",
}, func(ctx context.Context, s Session, in readInput) (readOutput, Result, error) {
	r, err := s.Manager.ReadFile(ctx, s.Caller, manager.ReadRequest{Name: in.Name, Path: in.Path, Offset: in.Offset, Limit: in.Limit, Base64: in.Encoding == base64Encoding})
	if err != nil {
		return readOutput{}, Result{}, err
	}
	out := readOutput{Path: r.Path, Content: r.Content, Size: r.Size, Lines: r.Lines, NextOffset: r.Next, ImageType: r.ImageType}
	if r.Image != nil {
		return out, Result{Text: fmt.Sprintf("%s: %s, %s", r.Path, r.ImageType, units.Size(r.Size)), Image: &Image{r.ImageType, r.Image}}, nil
	}
	text := r.Content
	if in.Encoding != base64Encoding {
		out.FirstLine = r.First
		if r.Size == 0 {
			text = "[the file is empty]"
		}
	}
	next := ""
	if r.Next > 0 {
		next = fmt.Sprintf("there is more: read_file with offset %d", r.Next)
	}
	return out, Result{Text: text, Next: next}, nil
})

type writeInput struct {
	Name     string   `json:"name"`
	Path     string   `json:"path" jsonschema:"absolute, or below the home of pixel; folders above it are made"`
	Content  string   `json:"content"`
	Encoding encoding `json:"encoding,omitempty" jsonschema:"base64 when content is that; text when left out"`
	Append   bool     `json:"append,omitempty" jsonschema:"add to the end of what is there"`
	Mode     string   `json:"mode,omitempty" jsonschema:"permissions in octal, as 755; those of the file that is there, or 644, when left out"`
}

type writeOutput struct {
	Path    string `json:"path"`
	Size    int64  `json:"size" jsonschema:"bytes of the file now"`
	Created bool   `json:"created,omitempty" jsonschema:"it was not there before"`
}

var writeFile = define(Tool{
	Verb: policy.VerbWriteFile, Title: "Write a file", Wakes: true, Destructive: true,
	Description: "Writes a file of a sandbox, whole and at once; what was in it is lost. New files belong to pixel. To change a part use edit_file.",
}, func(ctx context.Context, s Session, in writeInput) (writeOutput, Result, error) {
	content := []byte(in.Content)
	if in.Encoding == base64Encoding {
		var err error
		if content, err = base64.StdEncoding.DecodeString(in.Content); err != nil {
			return writeOutput{}, Result{}, fmt.Errorf("the argument \"content\" is no base64: %w", err)
		}
	}
	var mode uint64
	if in.Mode != "" {
		var err error
		if mode, err = strconv.ParseUint(in.Mode, 8, 32); err != nil || mode == 0 || mode > 0o777 {
			return writeOutput{}, Result{}, fmt.Errorf("the argument \"mode\" is %q; give permissions in octal, as 644 or 755", in.Mode)
		}
	}
	w, err := s.Manager.WriteFile(ctx, s.Caller, manager.WriteRequest{Name: in.Name, Path: in.Path, Content: content, Append: in.Append, Mode: fs.FileMode(mode)})
	out := writeOutput{w.Path, w.Size, w.Created}
	return out, Result{Text: fmt.Sprintf("wrote %s, which has %d bytes now", out.Path, out.Size)}, err
})

type editInput struct {
	Name       string `json:"name"`
	Path       string `json:"path" jsonschema:"absolute, or below the home of pixel"`
	OldText    string `json:"old_text" jsonschema:"exactly as it is in the file, and only once unless replace_all is set"`
	NewText    string `json:"new_text"`
	ReplaceAll bool   `json:"replace_all,omitempty"`
}

type editOutput struct {
	Path     string `json:"path"`
	Replaced int    `json:"replaced"`
}

var editFile = define(Tool{
	Verb: policy.VerbEditFile, Title: "Edit a file", Wakes: true, Destructive: true,
	Description: "Replaces text in a file of a sandbox by other text, exactly and without patterns.",
}, func(ctx context.Context, s Session, in editInput) (editOutput, Result, error) {
	p, n, err := s.Manager.EditFile(ctx, s.Caller, manager.EditRequest{Name: in.Name, Path: in.Path, Old: in.OldText, New: in.NewText, All: in.ReplaceAll})
	return editOutput{p, n}, Result{Text: fmt.Sprintf("replaced %s in %s", view.Count(n, "occurrence", "occurrences"), p)}, err
})

type listFilesInput struct {
	Name   string `json:"name"`
	Path   string `json:"path,omitempty" jsonschema:"folder; the home of pixel when left out"`
	Depth  int    `json:"depth,omitempty" jsonschema:"how many levels, up to 20; 1, or what glob needs, when left out"`
	Glob   string `json:"glob,omitempty" jsonschema:"only what matches below the folder, as *.go or src/**/*.go"`
	Limit  int    `json:"limit,omitempty" jsonschema:"how many at most, up to 1000; 200 when left out"`
	Cursor string `json:"cursor,omitempty" jsonschema:"next_cursor of the answer before, to read on"`
}

type listFilesOutput struct {
	Path       string              `json:"path"`
	Entries    []manager.FileEntry `json:"entries"`
	NextCursor string              `json:"next_cursor,omitempty" jsonschema:"there are more; give it as cursor"`
}

var listFiles = define(Tool{
	Verb: policy.VerbListFiles, Title: "List files", Wakes: true, ReadOnly: true, Idempotent: true,
	Description: "Lists a folder of a sandbox, with types, sizes and permissions.",
}, func(ctx context.Context, s Session, in listFilesInput) (listFilesOutput, Result, error) {
	if in.Path == "" {
		in.Path = "."
	}
	page, err := s.Manager.ListFiles(ctx, s.Caller, manager.FilesRequest{Name: in.Name, Path: in.Path, Depth: in.Depth, Glob: in.Glob, Limit: in.Limit, After: in.Cursor})
	if err != nil {
		return listFilesOutput{}, Result{}, err
	}
	out := listFilesOutput{page.Path, page.Entries, page.Next}
	lines := []string{sandbox.Shown(page.Path) + ":"}
	for _, e := range page.Entries {
		text := sandbox.Shown(e.Path)
		switch e.Type {
		case "folder":
			text += "/"
		case "link":
			text += " -> " + sandbox.Shown(e.Target)
		case "file":
			text += fmt.Sprintf(" (%d bytes)", e.Size)
		}
		lines = append(lines, text)
	}
	if len(page.Entries) == 0 {
		lines = append(lines, "nothing; with more depth or another glob there may be something")
	}
	next := ""
	if page.Next != "" {
		next = fmt.Sprintf("there are more: list_files with cursor %q", page.Next)
	}
	return out, Result{Text: strings.Join(lines, "\n"), Next: next}, nil
})

// direction is which way files are copied.
type direction string

type copyInput struct {
	Name      string    `json:"name"`
	Direction direction `json:"direction" jsonschema:"in: into the sandbox; out: to the host"`
	HostPath  string    `json:"host_path" jsonschema:"on this server's machine; relative to the first open folder"`
	Path      string    `json:"path" jsonschema:"in the sandbox: absolute, or below pixel's home"`
	MaxSize   string    `json:"max_size,omitempty" jsonschema:"default its disk"`
	MaxFiles  int       `json:"max_files,omitempty" jsonschema:"default 100000"`
}

type copyOutput struct {
	HostPath string   `json:"host_path"`
	Path     string   `json:"path"`
	Files    int      `json:"files"`
	Bytes    int64    `json:"bytes"`
	Skipped  []string `json:"skipped,omitempty"`
}

var copyFiles = define(Tool{
	Verb: policy.VerbCopyFiles, Title: "Copy files", Wakes: true, Destructive: true, Idempotent: true, Long: true,
	Description: "Copies a file or folder between the host and a sandbox. What is there is written over; links that lead out are skipped. " +
		"On the host only folders a human opened are in reach.",
}, func(ctx context.Context, s Session, in copyInput) (copyOutput, Result, error) {
	if in.Direction != "in" && in.Direction != "out" {
		return copyOutput{}, Result{}, fmt.Errorf("the argument \"direction\" is %q; give \"in\" (into the sandbox) or \"out\"", in.Direction)
	}
	var most int64
	if in.MaxSize != "" {
		var err error
		if most, err = units.ParseSize(in.MaxSize); err != nil {
			return copyOutput{}, Result{}, fmt.Errorf("the argument \"max_size\": %w", err)
		}
	}
	c, err := s.Manager.CopyFiles(ctx, s.Caller, manager.CopyRequest{
		Name: in.Name, Out: in.Direction == "out", HostPath: in.HostPath, Path: in.Path, MaxBytes: most, MaxFiles: in.MaxFiles,
	})
	if err != nil {
		return copyOutput{}, Result{}, err
	}
	out := copyOutput{c.HostPath, c.Path, c.Files, c.Bytes, append([]string{}, c.Skipped...)}
	if c.SkippedMore > 0 {
		out.Skipped = append(out.Skipped, fmt.Sprintf("and %d more", c.SkippedMore))
	}
	from, to := sandbox.Shown(c.HostPath), in.Name+":"+sandbox.Shown(c.Path)
	if in.Direction == "out" {
		from, to = to, from
	}
	text := fmt.Sprintf("copied %s to %s: %s, %s", from, to, view.Count(c.Files, "file", "files"), units.Size(c.Bytes))
	if len(out.Skipped) > 0 {
		text += "; left out: " + strings.Join(out.Skipped, ", ")
	}
	return out, Result{Text: text}, nil
})
