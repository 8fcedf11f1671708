package setup

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheShortNameIsLinkedBesideTheProgram(t *testing.T) {
	link := func(dir string) string {
		var out bytes.Buffer
		j := newJob(Options{Out: &out, Program: filepath.Join(dir, "pixels-mcp")})
		if err := j.shortName(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	dir := t.TempDir()
	for _, said := range []string{"(new", "(was there"} {
		if out := link(dir); !strings.Contains(out, said) {
			t.Errorf("it says %q, want %q", out, said)
		}
		if to, err := os.Readlink(filepath.Join(dir, "pixels")); to != "pixels-mcp" {
			t.Errorf("it leads to %q, %v", to, err)
		}
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "pixels"), []byte("theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out := link(other); !strings.Contains(out, "another program") {
		t.Errorf("it says %q", out)
	}
	if b, err := os.ReadFile(filepath.Join(other, "pixels")); string(b) != "theirs" {
		t.Errorf("another's program became %q, %v", b, err)
	}
}
