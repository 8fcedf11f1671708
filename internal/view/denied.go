package view

import (
	"fmt"
	"strings"

	"pixels/internal/plain"
	"pixels/sandbox"
)

// maxHint bounds what a command's answer says of denials, in bytes.
const maxHint = 2000

// deniedText says what was denied while a command ran; empty when nothing was.
func deniedText(denied []sandbox.Denial) string {
	if len(denied) == 0 {
		return ""
	}
	var where []string
	byName := true
	for _, d := range denied[:min(len(denied), 10)] {
		text := d.Where()
		if d.Domain == "" {
			byName = false
		}
		where = append(where, text+" ("+d.Reason+")")
	}
	if more := len(denied) - len(where); more > 0 {
		where = append(where, fmt.Sprintf("and %d more", more))
	}
	text := plain.Line("egress denied while it ran: "+strings.Join(where, ", "), maxHint)
	if byName {
		return text
	}
	return text + "; addresses are reached by name"
}
