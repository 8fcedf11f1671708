// Package owner has what owners' names tell: a token that was minted by the holder of another one is named below it, as orch/worker-1.
// No user of a system has a slash in their name.
package owner

import "strings"

const below = "/"

// Root is the owner at the top of the tree in which one stands: the policy's rules for the root hold for all of it.
func Root(name string) string {
	root, _, _ := strings.Cut(name, below)
	return root
}

// Parent is the owner just above one; empty where that is a root.
func Parent(name string) string { return name[:max(0, strings.LastIndex(name, below))] }

// Under tells whether an owner is another one, or stands below it.
func Under(name, top string) bool { return name == top || strings.HasPrefix(name, top+below) }

// Lineage are the names from a root down to an owner.
func Lineage(name string) (out []string) {
	for i, c := range name {
		if string(c) == below {
			out = append(out, name[:i])
		}
	}
	return append(out, name)
}
