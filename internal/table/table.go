// Package table prints rows of columns so that they fit a terminal.
package table

import (
	"fmt"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
)

// Table is rows under a head. The columns stand in the order of their importance: what does not fit is left out from the right. The first
// one is never cut: people type what is in it.
type Table struct {
	Head  []string
	Rows  [][]string
	Width int // columns of the terminal; 0 means that nothing is cut or left out

	// Style adds colour to a cell that was cut and padded already. It may be nil.
	Style func(column int, cell, padded string) string
}

// gap stands between two columns.
const gap = "  "

// least is how many characters of a cell are left when it is cut.
const least = 8

// Write prints the table.
func (t Table) Write(to io.Writer) error {
	widths := t.fit()
	for i, row := range append([][]string{t.Head}, t.Rows...) {
		var line strings.Builder
		for column, width := range widths {
			text := runewidth.Truncate(row[column], width, "…")
			padded := text
			if column < len(widths)-1 {
				padded = runewidth.FillRight(text, width) + gap
			}
			if t.Style != nil && i > 0 {
				padded = t.Style(column, row[column], padded)
			}
			line.WriteString(padded)
		}
		if _, err := fmt.Fprintln(to, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// fit returns how wide each column is of those that there is room for.
func (t Table) fit() []int {
	widths := make([]int, len(t.Head))
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		for column := range widths {
			widths[column] = max(widths[column], runewidth.StringWidth(row[column]))
		}
	}
	if t.Width == 0 {
		return widths
	}
	over := func() int {
		sum := len(gap) * (len(widths) - 1)
		for _, w := range widths {
			sum += w
		}
		return sum - t.Width
	}
	for over() > 0 && len(widths) > 1 {
		last := len(widths) - 1
		if room := widths[last] - over(); room >= max(least, runewidth.StringWidth(t.Head[last])) {
			widths[last] = room
			break
		}
		widths = widths[:last]
	}
	return widths
}
