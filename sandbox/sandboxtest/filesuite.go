package sandboxtest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pixels/internal/view"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// filed is a Manager over the backend, to which a folder of the host is open.
func (s Subject) filed(t *testing.T) (m *manager.Manager, host string) {
	t.Helper()
	host = t.TempDir()
	return manager.New(s, manager.Defaults{Policy: OpenTo(t, host)}), host
}

func filesReadAndWritten(t *testing.T, s Subject, box sandbox.Sandbox) {
	m := manager.New(s, manager.Defaults{})
	write := func(r manager.WriteRequest) manager.WriteResult {
		t.Helper()
		r.Name = "box"
		got, err := m.WriteFile(t.Context(), manager.Agent(s.Owner), r)
		if err != nil {
			t.Fatalf("write %s: %v", r.Path, err)
		}
		return got
	}
	read := func(r manager.ReadRequest) manager.ReadResult {
		t.Helper()
		r.Name = "box"
		got, err := m.ReadFile(t.Context(), manager.Agent(s.Owner), r)
		if err != nil {
			t.Fatalf("read %s: %v", r.Path, err)
		}
		return got
	}
	if got := write(manager.WriteRequest{Path: "new/folder/a.txt", Content: []byte("one\ntwo\nthree\n")}); got.Path != "/home/pixel/new/folder/a.txt" || got.Size != 14 || !got.Created {
		t.Errorf("wrote %+v", got)
	}
	if got := s.output(t, box.ID, "cat new/folder/a.txt"); got != "one\ntwo\nthree" {
		t.Errorf("inside it is %q", got)
	}
	if got := write(manager.WriteRequest{Path: "~/new/folder/a.txt", Content: []byte("four\n"), Append: true}); got.Created || got.Size != 19 {
		t.Errorf("appended %+v", got)
	}
	for _, c := range []struct {
		offset, limit, first, next int
		content                    string
	}{{0, 0, 1, 0, "one\ntwo\nthree\nfour\n"}, {2, 2, 2, 4, "two\nthree\n"}, {4, 9, 4, 0, "four\n"}, {1, 1, 1, 2, "one\n"}} {
		got := read(manager.ReadRequest{Path: "new/folder/a.txt", Offset: c.offset, Limit: c.limit})
		if got.Content != c.content || got.First != c.first || got.Next != c.next || got.Lines != 4 || got.Size != 19 {
			t.Errorf("from %d, %d lines: %+v", c.offset, c.limit, got)
		}
	}
	long := strings.Repeat(strings.Repeat("x", 99)+"\n", 3000)
	write(manager.WriteRequest{Path: "/tmp/long", Content: []byte(long)})
	all, at := "", 1
	for range 50 {
		got := read(manager.ReadRequest{Path: "/tmp/long", Offset: at})
		if all += got.Content; got.Next == 0 {
			break
		}
		at = got.Next
	}
	if all != long {
		t.Errorf("read on to the end it is %d bytes, want %d", len(all), len(long))
	}
	bytes := make([]byte, 40_000)
	for i := range bytes {
		bytes[i] = byte(i * 7)
	}
	write(manager.WriteRequest{Path: "binary", Content: bytes, Mode: 0o755})
	if _, err := m.ReadFile(t.Context(), manager.Agent(s.Owner), manager.ReadRequest{Name: "box", Path: "binary"}); !errors.Is(err, sandbox.ErrInvalid) || !strings.Contains(view.Error(err, view.Agent), "base64") {
		t.Errorf("bytes read as text: %v", err)
	}
	var back []byte
	for at := 0; ; {
		got := read(manager.ReadRequest{Path: "binary", Offset: at, Base64: true})
		b, err := base64.StdEncoding.DecodeString(got.Content)
		if err != nil {
			t.Fatal(err)
		}
		back = append(back, b...)
		if at = got.Next; at == 0 {
			break
		}
	}
	if string(back) != string(bytes) {
		t.Errorf("bytes come back as %d others", len(back))
	}
	write(manager.WriteRequest{Path: "picture", Content: []byte("\x89PNG\r\n\x1a\nrest")})
	if got := read(manager.ReadRequest{Path: "picture"}); got.ImageType != "image/png" || len(got.Image) != 12 || got.Content != "" {
		t.Errorf("an image is %+v", got)
	}
	if got := read(manager.ReadRequest{Path: "/tmp/empty/../long", Limit: 1}); got.Path != "/tmp/long" {
		t.Errorf("the path is %s", got.Path)
	}
	write(manager.WriteRequest{Path: "empty"})
	if got := read(manager.ReadRequest{Path: "empty"}); got.Content != "" || got.Lines != 0 || got.Size != 0 {
		t.Errorf("an empty file is %+v", got)
	}
}

func filesEdited(t *testing.T, s Subject, box sandbox.Sandbox) {
	m := manager.New(s, manager.Defaults{})
	write := func(p, content string) {
		t.Helper()
		if _, err := m.WriteFile(t.Context(), manager.Agent(s.Owner), manager.WriteRequest{Name: "box", Path: p, Content: []byte(content), Mode: 0o750}); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "x = 1\ny = 1\n")
	edit := func(r manager.EditRequest) (int, error) {
		r.Name, r.Path = "box", "a"
		_, n, err := m.EditFile(t.Context(), manager.Agent(s.Owner), r)
		return n, err
	}
	if n, err := edit(manager.EditRequest{Old: "x = 1", New: "x = $1\\n"}); err != nil || n != 1 {
		t.Errorf("one: %d, %v", n, err)
	}
	for _, c := range []struct {
		r    manager.EditRequest
		is   error
		hint string
	}{
		{manager.EditRequest{Old: "1", New: "2"}, sandbox.ErrInvalid, "2 times"},
		{manager.EditRequest{Old: "absent", New: "2"}, sandbox.ErrNotFound, "exactly"},
		{manager.EditRequest{Old: "", New: "2"}, sandbox.ErrInvalid, "write_file"},
		{manager.EditRequest{Old: "x", New: "x"}, sandbox.ErrInvalid, "another"},
	} {
		if _, err := edit(c.r); !errors.Is(err, c.is) || !strings.Contains(view.Error(err, view.Agent), c.hint) {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
	if n, err := edit(manager.EditRequest{Old: "1", New: "2", All: true}); err != nil || n != 2 {
		t.Errorf("all: %d, %v", n, err)
	}
	if got := s.output(t, box.ID, "cat a"); got != "x = $2\\n\ny = 2" {
		t.Errorf("it is now %q", got)
	}
	page, err := m.ListFiles(t.Context(), manager.Agent(s.Owner), manager.FilesRequest{Name: "box", Path: "."})
	i := -1
	for n, e := range page.Entries {
		if e.Path == "a" {
			i = n
		}
		if strings.HasPrefix(e.Path, ".pixels") {
			t.Errorf("left is %s", e.Path)
		}
	}
	if err != nil || i < 0 || page.Entries[i].Mode != "0750" || page.Entries[i].Owner != "1000:1000" {
		t.Errorf("the list has %+v, %v", page, err)
	}
}

func filesMissing(t *testing.T, s Subject, _ sandbox.Sandbox) {
	m, host := s.filed(t)
	for what, c := range map[string]struct {
		do   func() error
		is   error
		hint string
	}{
		"read nothing":       {func() error { return readError(m, s, t, "absent") }, sandbox.ErrNotFound, "/home/pixel/absent"},
		"read a folder":      {func() error { return readError(m, s, t, "/tmp") }, sandbox.ErrInvalid, "list_files"},
		"read no path":       {func() error { return readError(m, s, t, "") }, sandbox.ErrInvalid, "path"},
		"read by a file":     {func() error { return readError(m, s, t, "/etc/hostname/x") }, nil, "/etc/hostname/x"},
		"write to a folder":  {func() error { return writeError(m, s, t, "/tmp") }, sandbox.ErrInvalid, "folder"},
		"write to a slash":   {func() error { return writeError(m, s, t, "x/") }, sandbox.ErrInvalid, "folder"},
		"write below a file": {func() error { return writeError(m, s, t, "/etc/hostname/x") }, nil, "/etc/hostname"},
		"list nothing":       {func() error { return listError(m, s, t, manager.FilesRequest{Path: "/absent"}) }, sandbox.ErrNotFound, "/absent"},
		"list a file":        {func() error { return listError(m, s, t, manager.FilesRequest{Path: "/etc/hostname"}) }, sandbox.ErrInvalid, "read_file"},
		"list too deep":      {func() error { return listError(m, s, t, manager.FilesRequest{Path: "/", Depth: 99}) }, sandbox.ErrInvalid, "1 to 20"},
		"list by a bad glob": {func() error { return listError(m, s, t, manager.FilesRequest{Path: "/", Glob: "["}) }, sandbox.ErrInvalid, "*.go"},
		"copy nothing in":    {func() error { return copyError(m, s, t, manager.CopyRequest{HostPath: "absent", Path: "x"}) }, sandbox.ErrNotFound, "absent"},
		"copy nothing out":   {func() error { return copyError(m, s, t, manager.CopyRequest{Out: true, HostPath: "x", Path: "absent"}) }, sandbox.ErrNotFound, "absent"},
		"copy from outside":  {func() error { return copyError(m, s, t, manager.CopyRequest{HostPath: "/etc/passwd", Path: "x"}) }, sandbox.ErrDenied, host},
		"copy to above": {func() error {
			return copyError(m, s, t, manager.CopyRequest{Out: true, HostPath: "../x", Path: "/etc/hostname"})
		}, sandbox.ErrDenied, host},
		"copy of no sandbox": {func() error {
			_, err := m.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "absent", HostPath: ".", Path: "x"})
			return err
		}, sandbox.ErrNotFound, "there are: box"},
	} {
		t.Run(strings.ReplaceAll(what, " ", "_"), func(t *testing.T) {
			err := c.do()
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(view.Error(err, view.Agent), c.hint) {
				t.Errorf("%v, want %v with %q", err, c.is, c.hint)
			}
		})
	}
	if entries, err := os.ReadDir(host); err != nil || len(entries) != 0 {
		t.Errorf("on the host there are now %v, %v", entries, err)
	}
}

func readError(m *manager.Manager, s Subject, t *testing.T, p string) error {
	_, err := m.ReadFile(t.Context(), manager.Agent(s.Owner), manager.ReadRequest{Name: "box", Path: p})
	return err
}

func writeError(m *manager.Manager, s Subject, t *testing.T, p string) error {
	_, err := m.WriteFile(t.Context(), manager.Agent(s.Owner), manager.WriteRequest{Name: "box", Path: p, Content: []byte("x")})
	return err
}

func listError(m *manager.Manager, s Subject, t *testing.T, r manager.FilesRequest) error {
	r.Name = "box"
	_, err := m.ListFiles(t.Context(), manager.Agent(s.Owner), r)
	return err
}

func copyError(m *manager.Manager, s Subject, t *testing.T, r manager.CopyRequest) error {
	r.Name = "box"
	_, err := m.CopyFiles(t.Context(), manager.Agent(s.Owner), r)
	return err
}

func filesListed(t *testing.T, s Subject, box sandbox.Sandbox) {
	m := manager.New(s, manager.Defaults{})
	for _, p := range []string{"/d/a.go", "/d/b/c.go", "/d/b/c.txt", "/d/b/d/e.go", "/d/z"} {
		if _, err := m.WriteFile(t.Context(), manager.Agent(s.Owner), manager.WriteRequest{Name: "box", Path: p, Content: []byte("xy")}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.OpenFiles(t.Context(), box.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Symlink("/d/b", "/d/link"); err != nil {
		t.Fatal(err)
	}
	list := func(r manager.FilesRequest) (names string, next string) {
		t.Helper()
		r.Name, r.Path = "box", "/d"
		page, err := m.ListFiles(t.Context(), manager.Agent(s.Owner), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			names += e.Path
			switch e.Type {
			case "folder":
				names += "/"
			case "link":
				names += ">" + e.Target
			case "file":
				names += fmt.Sprintf("(%d)", e.Size)
			}
			names += " "
		}
		return names, page.Next
	}
	for _, c := range []struct {
		r    manager.FilesRequest
		want string
	}{
		{manager.FilesRequest{}, "a.go(2) b/ link>/d/b z(2) "},
		{manager.FilesRequest{Depth: 2}, "a.go(2) b/ b/c.go(2) b/c.txt(2) b/d/ link>/d/b z(2) "},
		{manager.FilesRequest{Depth: 9}, "a.go(2) b/ b/c.go(2) b/c.txt(2) b/d/ b/d/e.go(2) link>/d/b z(2) "},
		{manager.FilesRequest{Glob: "*.go"}, "a.go(2) "},
		{manager.FilesRequest{Glob: "**/*.go"}, "a.go(2) b/c.go(2) b/d/e.go(2) "},
		{manager.FilesRequest{Glob: "b/*.{go,txt}"}, "b/c.go(2) b/c.txt(2) "},
		{manager.FilesRequest{Glob: "*.rs"}, ""},
	} {
		if got, next := list(c.r); got != c.want || next != "" {
			t.Errorf("%+v gives %q, %q; want %q", c.r, got, next, c.want)
		}
	}
	all, after := "", ""
	for range 9 {
		names, next := list(manager.FilesRequest{Depth: 9, Limit: 2, After: after})
		if all += names; next == "" {
			break
		}
		after = next
	}
	if want := "a.go(2) b/ b/c.go(2) b/c.txt(2) b/d/ b/d/e.go(2) link>/d/b z(2) "; all != want {
		t.Errorf("page by page it is %q", all)
	}
}

func filesCopied(t *testing.T, s Subject, box sandbox.Sandbox) {
	m, host := s.filed(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(host, "src/deep"), 0o755))
	must(os.WriteFile(filepath.Join(host, "src/run.sh"), []byte("#!/bin/sh\x00\xff"), 0o755))
	must(os.WriteFile(filepath.Join(host, "src/deep/secret"), []byte("s"), 0o600))
	must(os.Symlink("run.sh", filepath.Join(host, "src/link")))
	must(os.Symlink("/etc/passwd", filepath.Join(host, "src/out")))
	got, err := m.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "box", HostPath: "src", Path: "work/src"})
	if err != nil || got.Files != 4 || got.Bytes != 12 || got.Path != "/home/pixel/work/src" {
		t.Fatalf("copied in %+v, %v", got, err)
	}
	page, err := m.ListFiles(t.Context(), manager.Agent(s.Owner), manager.FilesRequest{Name: "box", Path: "work", Depth: 9})
	must(err)
	var text string
	for _, e := range page.Entries {
		text += fmt.Sprintf("%s %s %s %s\n", e.Path, e.Mode[1:], e.Owner, e.Target)
	}
	want := "src 755 1000:1000 \nsrc/deep 755 1000:1000 \nsrc/deep/secret 600 1000:1000 \nsrc/link 777 "
	if !strings.HasPrefix(text, want) || !strings.Contains(text, " run.sh\n") || !strings.Contains(text, " /etc/passwd\n") || !strings.Contains(text, "src/run.sh 755 1000:1000 \n") {
		t.Errorf("inside there are\n%s", text)
	}
	// A file goes into a folder that is there, and over what is there; a link in its way is not written through.
	must(os.WriteFile(filepath.Join(host, "one"), []byte("new"), 0o644))
	if got, err := m.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "box", HostPath: filepath.Join(host, "one"), Path: "work"}); err != nil || got.Path != "/home/pixel/work/one" {
		t.Errorf("into a folder: %+v, %v", got, err)
	}
	if _, err := m.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "box", HostPath: "one", Path: "work/src/link"}); err != nil {
		t.Error(err)
	}
	if got := s.output(t, box.ID, "cat work/src/link; cat work/one"); got != "newnew" {
		t.Errorf("over a link it is %q", got)
	}
	// Out again, where a link on the host leads outside.
	outside := t.TempDir()
	must(os.Symlink(outside, filepath.Join(host, "trap")))
	if _, err := m.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "box", Out: true, HostPath: "trap/x", Path: "work"}); err == nil {
		t.Error("a link on the host led outside")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("outside there are %v, %v", left, err)
	}
	got, err = m.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "box", Out: true, HostPath: "back", Path: "work/src"})
	if err != nil || got.Files != 3 || len(got.Skipped) != 1 || !strings.Contains(got.Skipped[0], "/etc/passwd") {
		t.Fatalf("copied out %+v, %v", got, err)
	}
	b, err := os.ReadFile(filepath.Join(host, "back/run.sh"))
	if err != nil || string(b) != "#!/bin/sh\x00\xff" {
		t.Errorf("back came %q, %v", b, err)
	}
	if info, err := os.Stat(filepath.Join(host, "back/deep/secret")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its permissions are %v, %v", info, err)
	}
	if _, err := os.Lstat(filepath.Join(host, "back/out")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link that leads out was copied: %v", err)
	}
	if info, err := os.Lstat(filepath.Join(host, "back/link")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("what took a link's place is %v, %v", info, err)
	}
	if _, err := m.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "box", Out: true, HostPath: "back", Path: "work/src"}); err != nil {
		t.Errorf("a second time: %v", err)
	}
	s.hostileCopies(t, m, host, box)
	closed := manager.New(s, manager.Defaults{})
	if _, err := closed.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "box", HostPath: "one", Path: "x"}); !errors.Is(err, sandbox.ErrDenied) {
		t.Errorf("with no folder open: %v", err)
	}
}

// hostileCopies are of what a sandbox prepared for the host, and of what lies on the host.
func (s Subject) hostileCopies(t *testing.T, m *manager.Manager, host string, box sandbox.Sandbox) {
	t.Helper()
	out := func(to, from string, bytes int64, files int) (manager.CopyResult, error) {
		return m.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "box", Out: true, HostPath: to, Path: from, MaxBytes: bytes, MaxFiles: files})
	}
	files, err := s.OpenFiles(t.Context(), box.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	const home = "/home/pixel/"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, parts ...[]byte) {
		t.Helper()
		f, err := files.Create(home + name)
		must(err)
		for _, part := range parts {
			_, err := f.Write(part)
			must(err)
		}
		must(f.Close())
	}
	for _, folder := range []string{"evil", "evil/top", "evil/deep", "many", "names"} {
		must(files.Mkdir(home + folder))
	}
	for link, target := range map[string]string{
		"deep/l": "../top", "deep/m": "l/../../etc", "deep/up": "../../../etc", "abs": "/etc", "fine": "./top", "deep/fine": "../fine",
		"parent": "..", "deep/root": "../..", "deep/inside": "..",
	} {
		must(files.Symlink(target, home+"evil/"+link))
	}
	got, err := out("evil", "evil", 0, 0)
	if err != nil || got.Files != 4 || len(got.Skipped) != 5 {
		t.Errorf("links: %+v, %v", got, err)
	}
	for _, link := range []string{"fine", "deep/fine", "deep/l", "deep/inside"} {
		if real, err := filepath.EvalSymlinks(filepath.Join(host, "evil", link)); err != nil || !strings.HasPrefix(real, host) {
			t.Errorf("the link %s leads to %s, %v", link, real, err)
		}
	}
	// Bounds, in bytes and in files; what the bound stops is said, and what is in a hole takes no room.
	for i := range 30 {
		write(fmt.Sprintf("many/%d", i), []byte("x"))
	}
	write("big", bytes.Repeat([]byte("x"), 300000))
	write("holes", make([]byte, 3000000), []byte("end\n"))
	if _, err := out("many", "many", 0, 20); !errors.Is(err, sandbox.ErrInvalid) || !strings.Contains(err.Error(), "max_files") {
		t.Errorf("more files than may be: %v", err)
	}
	if _, err := out("big", "big", 200000, 0); !errors.Is(err, sandbox.ErrInvalid) || !strings.Contains(err.Error(), "max_size") {
		t.Errorf("more bytes than may be: %v", err)
	}
	if got, err := out("holes", "holes", 500000, 0); err != nil || got.Bytes != 3000004 {
		t.Errorf("holes: %+v, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(host, "holes")); err != nil || info.Size() != 3000004 || info.Sys().(*syscall.Stat_t).Blocks*512 > 1<<20 {
		t.Errorf("a file of holes is %+v, %v", info, err)
	}
	if _, err := out("holes2", "holes", 100000, 0); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("more holes than may be: %v", err)
	}
	// A name is the sandbox's own.
	write("names/a\nb\x1b[31m\u202e", []byte("x"))
	must(files.Symlink("/nowhere\x1b[32m", home+"names/l\x1b[31m"))
	got, err = out("names", "names", 0, 0)
	if err != nil || len(got.Skipped) != 1 || strings.ContainsAny(got.Skipped[0], "\n\x1b") {
		t.Errorf("a name with an escape: %+v, %v", got, err)
	}
	// A source on the host that is a link is followed inside the folder that is open.
	for name, target := range map[string]string{"to-one": "one", "to-src": "src", "to-etc": "/etc/hostname", "to-above": "../../../../../../etc/hostname"} {
		if err := os.Symlink(target, filepath.Join(host, name)); err != nil {
			t.Fatal(err)
		}
	}
	in := func(from string) error {
		_, err := m.CopyFiles(t.Context(), manager.Agent(s.Owner), manager.CopyRequest{Name: "box", HostPath: from, Path: "from/" + from})
		return err
	}
	if err := errors.Join(in("to-one"), in("to-src")); err != nil {
		t.Errorf("links on the host, inside: %v", err)
	}
	if got := s.output(t, box.ID, "cat from/to-one; [ -L from/to-one ] && echo link; cat from/to-src/deep/secret"); got != "news" {
		t.Errorf("links on the host were copied as %q", got)
	}
	for _, name := range []string{"to-etc", "to-above"} {
		if err := in(name); err == nil {
			t.Errorf("the link %s on the host led outside", name)
		}
	}
}
