package table

import (
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
)

var rows = [][]string{
	{"base", "running", "10.89.0.12", "what it is for, at some length"},
	{"feature-auth", "stopped", "", "日本語のとても長い説明文です"},
}

func printed(t *testing.T, width int) string {
	t.Helper()
	var out strings.Builder
	if err := (Table{Head: []string{"NAME", "STATE", "ADDRESS", "WHAT FOR"}, Rows: rows, Width: width}).Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestATableIsNeverWiderThanTheTerminal(t *testing.T) {
	for width := len("feature-auth"); width <= 100; width++ {
		for _, line := range strings.Split(printed(t, width), "\n") {
			if n := runewidth.StringWidth(line); n > width {
				t.Fatalf("at %d columns a line has %d: %q", width, n, line)
			}
		}
	}
}

func TestWhatMattersMostStaysLongest(t *testing.T) {
	for width, want := range map[int][2]string{
		0:  {"at some length", ""},
		60: {"feature-auth  stopped              日本語", "…"},
		40: {"feature-auth  stopped", "日"},
		20: {"feature-auth", "stopped"},
		6:  {"feature-auth", "stopped"},
	} {
		got := printed(t, width)
		if !strings.Contains(got, want[0]) || want[1] != "" && width < 60 && strings.Contains(got, want[1]) {
			t.Errorf("at %d columns:\n%s", width, got)
		}
	}
}

func TestWhatIsTypedIsNeverCut(t *testing.T) {
	var out strings.Builder
	if err := (Table{Head: []string{"ID", "STATE"}, Rows: [][]string{{"req-k3xisscy6f", "open"}}, Width: 6}).Write(&out); err != nil || out.String() != "ID\nreq-k3xisscy6f\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestStylesChangeNoWidth(t *testing.T) {
	var plain, styled strings.Builder
	table := Table{Head: []string{"NAME", "STATE"}, Rows: [][]string{{"a", "running"}, {"longer", "stopped"}}}
	if err := table.Write(&plain); err != nil {
		t.Fatal(err)
	}
	table.Style = func(column int, cell, padded string) string { return "<" + padded + ">" }
	if err := table.Write(&styled); err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer("<", "", ">", "").Replace(styled.String()); got != plain.String() {
		t.Errorf("%q, want %q", got, plain.String())
	}
}
