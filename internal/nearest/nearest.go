// Package nearest finds the word that was likely meant by an unknown one.
package nearest

import (
	"fmt"
	"strings"

	"github.com/hbollon/go-edlib"
)

// Hint ends a message about an unknown word with the known one that was likely meant, or is empty. Two letters swapped
// count as one mistake.
func Hint(word string, known []string) string {
	best, score := "", float32(0.6)
	for _, k := range known {
		if s, err := edlib.StringsSimilarity(word, k, edlib.OSADamerauLevenshtein); err == nil && s > score {
			best, score = k, s
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// Within returns the known word from which a word, in upper or lower case, differs in so many letters at most, and the least;
// empty where there is none. Two letters swapped count as one. One of which no letter is left is none.
func Within(word string, known []string, letters int) (meant string) {
	least := letters + 1
	for _, k := range known {
		if n := edlib.OSADamerauLevenshteinDistance(strings.ToLower(word), k); n < least && n < len(k) {
			meant, least = k, n
		}
	}
	return meant
}
