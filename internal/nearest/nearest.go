// Package nearest finds the word that was likely meant by an unknown one.
package nearest

import (
	"fmt"

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
