package owner

import (
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	for _, test := range []struct {
		name, root, parent string
		lineage            []string
	}{
		{"alice", "alice", "", []string{"alice"}},
		{"orch/w1", "orch", "orch", []string{"orch", "orch/w1"}},
		{"orch/w1/x", "orch", "orch/w1", []string{"orch", "orch/w1", "orch/w1/x"}},
	} {
		if Root(test.name) != test.root || Parent(test.name) != test.parent || !slices.Equal(Lineage(test.name), test.lineage) {
			t.Errorf("%s: %q, %q, %q", test.name, Root(test.name), Parent(test.name), Lineage(test.name))
		}
	}
	for _, test := range []struct {
		name, top string
		under     bool
	}{{"orch", "orch", true}, {"orch/w1", "orch", true}, {"orchid", "orch", false}, {"orch", "orch/w1", false}, {"orch/w10", "orch/w1", false}} {
		if Under(test.name, test.top) != test.under {
			t.Errorf("%+v", test)
		}
	}
}
