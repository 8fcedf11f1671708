package egress

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// Display is a name as people read it: in Unicode, where it has letters beyond ASCII.
func Display(name string) string {
	shown, err := idna.Display.ToUnicode(name)
	if err != nil {
		return name
	}
	return shown
}

// scripts are those that are told apart; what is in none of them, as digits, is in all.
var scripts = map[string]*unicode.RangeTable{
	"Latin": unicode.Latin, "Cyrillic": unicode.Cyrillic, "Greek": unicode.Greek, "Armenian": unicode.Armenian, "Hebrew": unicode.Hebrew, "Arabic": unicode.Arabic,
	"Devanagari": unicode.Devanagari, "Thai": unicode.Thai, "Georgian": unicode.Georgian, "Cherokee": unicode.Cherokee, "Hangul": unicode.Hangul,
	"Han": unicode.Han, "Hiragana": unicode.Hiragana, "Katakana": unicode.Katakana,
}

// together are scripts that one word may have side by side.
var together = [][]string{{"Han", "Hiragana", "Katakana", "Latin"}, {"Han", "Hangul", "Latin"}}

// latinLike are letters of other scripts that look like Latin ones, after the confusables of Unicode Technical Standard 39.
const latinLike = "асԁеһіјӏорԛѕԝхуԍүөабгкмнтвьзэυορνικατωϲյոսցօզհձքƅɡɩαγ"

// Alike says what is wrong with a name that may be taken for another one; empty when nothing is.
func Alike(name string) string {
	for label := range strings.SplitSeq(Display(name), ".") {
		var found []string
		foreign, like := 0, 0
		for _, r := range label {
			for script, table := range scripts {
				if !unicode.Is(table, r) {
					continue
				}
				if !slices.Contains(found, script) {
					found = append(found, script)
				}
				if script != "Latin" {
					foreign++
					if strings.ContainsRune(latinLike, r) {
						like++
					}
				}
			}
		}
		slices.Sort(found)
		mixed := len(found) > 1 && !slices.ContainsFunc(together, func(t []string) bool {
			return !slices.ContainsFunc(found, func(s string) bool { return !slices.Contains(t, s) })
		})
		switch {
		case mixed:
			return fmt.Sprintf("%q mixes letters of %s: it may be made to look like another name", label, strings.Join(found, " and "))
		case foreign > 0 && foreign == like:
			return fmt.Sprintf("%q is written in letters that look like Latin ones, and are not", label)
		}
	}
	return ""
}

// Opens says what a rule lets a sandbox do beside what it was asked for.
func (r Rule) Opens() string {
	ports := 0
	for _, p := range r.Ports {
		ports += int(p.Last) - int(p.First) + 1
	}
	var what []string
	if r.Below {
		what = append(what, "every name below "+Display(r.Domain)+", also those that strangers may have there")
	}
	var list []string
	for _, p := range r.Ports {
		switch {
		case p.First == p.Last:
			list = append(list, fmt.Sprint(p.First))
		case p == Ports{1, 65535}:
			list = append(list, "all")
		default:
			list = append(list, fmt.Sprintf("%d to %d", p.First, p.Last))
		}
	}
	text := strings.Join(list, ", ")
	if i := strings.LastIndex(text, ", "); i >= 0 {
		text = text[:i] + " and " + text[i+2:]
	}
	what = append(what, map[bool]string{true: "port ", false: "ports "}[ports == 1]+text)
	what = append(what, "data may be sent there as well as fetched")
	return strings.Join(what, "; ")
}

// Wide says in which way a rule is for more than one place; empty when it isn't.
func (r Rule) Wide() string {
	switch {
	case r.Below:
		return "every name below " + Display(r.Domain)
	case slices.ContainsFunc(r.Ports, func(p Ports) bool { return p.First != p.Last }):
		return "a range of ports of " + Display(r.Domain)
	}
	return ""
}
