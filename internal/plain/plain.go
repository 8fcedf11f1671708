// Package plain keeps what strangers write from commanding a terminal, or from showing as something else than it is.
package plain

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"
)

// harmless tells whether a terminal shows a rune, and obeys it in nothing: control characters, and those that turn or hide
// text, are not.
func harmless(r rune) bool {
	return r >= 0x20 && (r < 0x7f || r >= 0xa0) && (r < 0x200b || r > 0x200f) && (r < 0x2028 || r > 0x202e) &&
		(r < 0x2060 || r > 0x206f) && r != 0xfeff && r != 0xad && r != 0x61c && (r < 0xe0000 || r > 0xe007f)
}

// Harmless tells whether all of a text is.
func Harmless(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !harmless(r) })
}

// Text returns a line without what is not harmless.
func Text(line string) string {
	return strings.Map(func(r rune) rune {
		if harmless(r) {
			return r
		}
		return -1
	}, line)
}

// Line makes a text one line of at most n bytes, of harmless characters.
func Line(text string, n int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case !harmless(r):
			return -1
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n-len("…")], "") + "…"
	}
	return text
}

// Writer passes on what it is given, but for characters that are not harmless; lines and tabs stay. Several may write at once.
type Writer struct {
	To   io.Writer
	mu   sync.Mutex
	rest []byte // of a rune that isn't whole yet
}

// Write implements io.Writer.
func (w *Writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := append(w.rest, b...)
	w.rest = nil
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		if !utf8.FullRune(text) {
			w.rest = append(w.rest, text...)
			break
		}
		r, n := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && n == 1:
			out = utf8.AppendRune(out, utf8.RuneError)
		case r == '\n' || r == '\t' || harmless(r):
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	if _, err := w.To.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Some lists the first of many words, and how many more there are.
func Some(words []string, most int) string {
	text := strings.Join(words[:min(len(words), most)], ", ")
	if more := len(words) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
