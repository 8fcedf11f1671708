package setup

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// source is one place that apt takes packages from: an entry of a .sources file, or a line of a .list file.
type source struct {
	uris, suites, components []string
	signedBy                 string // path, or a key block with its line breaks
	trusted                  bool
}

// readSources returns the enabled binary sources of the machine whose root is given.
func readSources(root string) ([]source, error) {
	var out []source
	paths := []string{filepath.Join(root, "/etc/apt/sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, err := filepath.Glob(filepath.Join(root, "/etc/apt/sources.list.d", pattern))
		if err != nil {
			return nil, err
		}
		paths = append(paths, more...)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read apt's sources: %w", err)
		}
		if strings.HasSuffix(path, ".sources") {
			out = append(out, parseDeb822(string(b))...)
		} else {
			out = append(out, parseOneLine(string(b))...)
		}
	}
	for i := range out {
		for k, uri := range out[i].uris {
			out[i].uris[k] = resolveMirrorFile(root, uri)
		}
	}
	return out, nil
}

// parseDeb822 reads the format of .sources files.
func parseDeb822(text string) []source {
	var out []source
	fields := map[string]string{}
	last := ""
	flush := func() {
		if len(fields) > 0 && slices.Contains(strings.Fields(fields["types"]), "deb") && !isNo(fields["enabled"]) {
			out = append(out, source{
				uris: strings.Fields(fields["uris"]), suites: strings.Fields(fields["suites"]), components: strings.Fields(fields["components"]),
				signedBy: strings.TrimSpace(fields["signed-by"]), trusted: strings.EqualFold(fields["trusted"], "yes"),
			})
		}
		fields, last = map[string]string{}, ""
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case (line[0] == ' ' || line[0] == '\t') && last != "":
			fields[last] += "\n" + strings.TrimRight(line, " \t")
		default:
			if key, value, ok := strings.Cut(line, ":"); ok {
				last = strings.ToLower(strings.TrimSpace(key))
				fields[last] = strings.TrimSpace(value)
			}
		}
	}
	flush()
	return out
}

func isNo(value string) bool {
	return slices.Contains([]string{"no", "false", "0", "off", "without", "disable"}, strings.ToLower(strings.TrimSpace(value)))
}

// parseOneLine reads the format of .list files: deb [options] uri suite component...
func parseOneLine(text string) []source {
	var out []source
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || (rest[0] != ' ' && rest[0] != '\t') {
			continue
		}
		var s source
		rest = strings.TrimSpace(rest)
		if options, after, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]"); ok && strings.HasPrefix(rest, "[") {
			rest = after
			for _, option := range strings.Fields(options) {
				switch key, value, _ := strings.Cut(option, "="); strings.ToLower(key) {
				case "signed-by":
					s.signedBy = value
				case "trusted":
					s.trusted = strings.EqualFold(value, "yes")
				}
			}
		}
		f := strings.Fields(rest)
		if len(f) < 2 {
			continue
		}
		s.uris, s.suites, s.components = f[:1], f[1:2], f[2:]
		out = append(out, s)
	}
	return out
}

// resolveMirrorFile turns mirror+file:/path, as cloud images have it, into the first mirror listed in that file: the
// file doesn't exist where the sources are carried to.
func resolveMirrorFile(root, uri string) string {
	path, ok := strings.CutPrefix(uri, "mirror+file:")
	if !ok {
		return uri
	}
	b, err := os.ReadFile(filepath.Join(root, filepath.Clean("/"+strings.TrimLeft(path, "/"))))
	if err != nil {
		return uri
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(f[0], "#") {
			return f[0]
		}
	}
	return uri
}

// has tells whether any source offers the suite.
func has(sources []source, suite string) bool {
	return slices.ContainsFunc(sources, func(s source) bool { return slices.Contains(s.suites, suite) })
}

// forRelease picks what offers the release itself, its updates and its security fixes, and drops all other suites and
// what can't be reached from inside a sandbox.
func forRelease(sources []source, codename string) []source {
	wanted := []string{codename, codename + "-updates", codename + "-security", codename + "/updates"}
	var out []source
	for _, s := range sources {
		kept := s
		kept.suites = slices.DeleteFunc(slices.Clone(s.suites), func(suite string) bool { return !slices.Contains(wanted, suite) })
		kept.uris = slices.DeleteFunc(slices.Clone(s.uris), func(uri string) bool {
			return !strings.HasPrefix(uri, "http://") && !strings.HasPrefix(uri, "https://") && !strings.HasPrefix(uri, "mirror")
		})
		if len(kept.suites) > 0 && len(kept.uris) > 0 && len(kept.components) > 0 {
			out = append(out, kept)
		}
	}
	return out
}

// mainSource returns the source of the release itself.
func mainSource(sources []source, codename string) (source, error) {
	for _, s := range forRelease(sources, codename) {
		if slices.Contains(s.suites, codename) && slices.Contains(s.components, "main") {
			return s, nil
		}
	}
	return source{}, fmt.Errorf("apt has no source for %s main: add one under /etc/apt/sources.list.d and run set-up again", codename)
}

// deb822 writes sources as a .sources file.
func deb822(sources []source) string {
	var b strings.Builder
	for i, s := range sources {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n", strings.Join(s.uris, " "), strings.Join(s.suites, " "), strings.Join(s.components, " "))
		if s.signedBy != "" {
			// A key block keeps its line breaks; its first line follows the colon's own line.
			if strings.Contains(s.signedBy, "\n") {
				fmt.Fprintf(&b, "Signed-By:\n %s\n", strings.TrimSpace(s.signedBy))
			} else {
				fmt.Fprintf(&b, "Signed-By: %s\n", s.signedBy)
			}
		}
		if s.trusted {
			b.WriteString("Trusted: yes\n")
		}
	}
	return b.String()
}

// withoutPasswords drops user names and passwords from URIs: an image is for anyone's code, and no place for a secret.
func withoutPasswords(sources []source) []source {
	out := slices.Clone(sources)
	for i := range out {
		out[i].uris = slices.Clone(out[i].uris)
		for k, uri := range out[i].uris {
			if u, err := url.Parse(uri); err == nil && u.User != nil {
				u.User = nil
				out[i].uris[k] = u.String()
			}
		}
	}
	return out
}
