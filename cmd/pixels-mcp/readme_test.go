package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// walkThrough are the lines of README that a reader is to type.
func walkThrough(t *testing.T) (lines []string) {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)<!-- walk-through: [^\n]*-->\n```\n(.*?)```").FindAllStringSubmatch(string(b), -1) {
		for line := range strings.Lines(m[1]) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) < 20 {
		t.Fatalf("README has %d lines to type", len(lines))
	}
	return lines
}

// Each line of README's walk-through does what it says, on a terminal, in the order in which a reader types them.
func TestTheWalkThroughOfREADME(t *testing.T) {
	t.Parallel()
	p := newTypist(t, "readme")
	w := newTerminal(p, 110, 40)
	w.types("cd ../..; PS1='<$?> '")
	w.ends("<0>")
	said := ""
	for _, line := range walkThrough(t) {
		w.types("clear")
		w.until("an empty screen", func(screen string) bool { return strings.TrimSpace(screen) == "<0>" })
		w.types(line)
		switch {
		case strings.Contains(line, "--console"):
			w.ends("~$")
			w.types("detach")
		case strings.HasPrefix(line, "pixels destroy") && !strings.Contains(line, "--force"):
			w.shows("[y/N]")
			w.types("y")
		}
		screen := w.until("a prompt after "+line, func(screen string) bool {
			screen = strings.TrimSpace(screen)
			return regexp.MustCompile(`\n<\d+>$`).MatchString(screen) && strings.Contains(screen, line)
		})
		if !strings.HasSuffix(strings.TrimSpace(screen), "<0>") {
			t.Errorf("%s fails:\n%s", line, screen)
		}
		said += screen
	}
	for _, want := range []string{"Created base in", "Created feature-auth in", "data\n", "base-3: exit code 0 after", "sleep 60", "base-2 is stopped", "Started base-2", "in 7d", "Restored base to ready", "Destroyed base-3"} {
		if !strings.Contains(said, want) {
			t.Errorf("it never says %q", want)
		}
	}
}
