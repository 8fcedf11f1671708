package plain

import (
	"strings"
	"testing"
)

// evil has all that a terminal obeys, or that shows text as another one.
const evil = "a\x1b[2J\x1b]0;owned\x07b\u202egnp.exe\u2066\u200b\u009b31m\ufeff\u00ad\u2028\U000e0041c"

func TestLinesAreHarmless(t *testing.T) {
	if got := Line("  one\n\ttwo\r"+evil+strings.Repeat("x", 5000), 60); got != "one two a[2J]0;ownedbgnp.exe31mcxxxxxxxxxxxxxxxxxxxxxxxxx…" {
		t.Errorf("%q, %d bytes", got, len(got))
	}
	if got := Line("\xff\xfeA", 10); got != "\uFFFDA" {
		t.Errorf("%q", got)
	}
}

func TestWhatIsPrintedIsHarmless(t *testing.T) {
	var b strings.Builder
	w := &Writer{To: &b}
	text := "one\ttwo\n" + evil + "ü\r\n"
	for i := range len(text) { // a byte at a time
		if n, err := w.Write([]byte{text[i]}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := b.String(); got != "one\ttwo\na[2J]0;ownedbgnp.exe31mcü\n" {
		t.Errorf("%q", got)
	}
}

func TestSome(t *testing.T) {
	for want, words := range map[string][]string{"": nil, "a": {"a"}, "a, b": {"a", "b"}, "a, b and 2 more": {"a", "b", "c", "d"}} {
		if got := Some(words, 2); got != want {
			t.Errorf("%v: %q", words, got)
		}
	}
}
