package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pixels/internal/plain"
	"pixels/internal/table"
)

// shown is how a command shows what it has: for people, as one JSON document, or as names alone.
type shown struct {
	json, quiet bool
}

// flags adds --json, and -q where there are names to print.
func (s *shown) flags(cmd *cobra.Command, names string) {
	cmd.Flags().BoolVar(&s.json, "json", false, "print one JSON document")
	if names != "" {
		cmd.Flags().BoolVarP(&s.quiet, "quiet", "q", false, "print "+names+" alone, one a line")
		exclusive(cmd, "json", "quiet")
	}
}

func (a *cli) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// terminal tells whether something is a terminal.
func terminal(f any) (*os.File, bool) {
	file, ok := f.(*os.File)
	return file, ok && term.IsTerminal(int(file.Fd()))
}

// width is how many columns stdout shows; 0 where it is no terminal.
func (a *cli) width() int {
	f, ok := terminal(a.raw)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// colours tells whether stdout may have colour, see https://no-color.org.
func (a *cli) colours() bool {
	_, ok := terminal(a.raw)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// paint are colours of words. All of them say the same without.
var paint = map[string]string{"running": "32", "error": "31", "failed": "31", "lost": "31", "creating": "33", "paused": "33", "open": "33"}

// printTable prints rows under a head, as wide as the terminal is at most.
func (a *cli) printTable(head []string, rows [][]string) error {
	for _, row := range rows {
		for i, cell := range row {
			row[i] = plain.Line(cell, 500)
		}
	}
	t := table.Table{Head: head, Rows: rows, Width: a.width()}
	if a.colours() {
		t.Style = func(_ int, cell, padded string) string {
			if code := paint[cell]; code != "" {
				return "\x1b[" + code + "m" + padded + "\x1b[0m"
			}
			return padded
		}
	}
	return t.Write(a.raw)
}

// printFields prints what is not empty of names and values.
func (a *cli) printFields(fields [][2]string) {
	widest := 0
	for _, f := range fields {
		if f[1] != "" {
			widest = max(widest, len(f[0]))
		}
	}
	for _, f := range fields {
		if f[1] != "" {
			fmt.Fprintf(a.out, "  %-*s %s\n", widest+1, f[0]+":", f[1])
		}
	}
}

// exclusive refuses two flags together.
func exclusive(cmd *cobra.Command, one, other string) {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed(one) && cmd.Flags().Changed(other) {
			return usageError{fmt.Errorf("give --%s or --%s, not both", one, other)}
		}
		return nil
	}
}

// joined has names as a sentence has them.
func joined(names []string) string { return strings.Join(names, ", ") }

// pairs writes a map as KEY=VALUE.
func pairs(values map[string]string) string {
	var out []string
	for key, value := range values {
		out = append(out, key+"="+value)
	}
	slices.Sort(out)
	return joined(out)
}
