package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// watched is a watch whose answers are noted.
type watched struct {
	*watching
	t       *testing.T
	granted []manager.Approval
	denied  []manager.Approval
}

func newWatched(t *testing.T, rules ...string) *watched {
	w := &watched{t: t}
	w.watching = &watching{
		proof: policy.Terminal,
		heavy: func(a manager.Approval) (string, error) {
			if strings.HasPrefix(w.looks[w.index()].Subject, "*") {
				return "every name below", nil
			}
			return "", nil
		},
		yes: func(a manager.Approval) (manager.Approved, error) {
			w.granted = append(w.granted, a)
			return manager.Approved{Names: []string{"box"}}, nil
		},
		no: func(a manager.Approval) (ledger.Request, error) {
			w.denied = append(w.denied, a)
			return ledger.Request{}, nil
		},
	}
	w.has(rules...)
	return w
}

// has has these be open from now on.
func (w *watched) has(rules ...string) {
	var looks []manager.Look
	for _, rule := range rules {
		r := ledger.Request{ID: "req-" + strings.Trim(rule, "*."), Subject: rule, Asked: []ledger.Asker{{Sandbox: "box"}}}
		looks = append(looks, manager.Look{Request: r, Handle: r.Handle(time.Hour), Usual: time.Hour})
	}
	w.show(looks)
}

func (w *watched) keys(keys string) {
	_, cmd := w.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(keys)})
	if cmd != nil {
		if said, ok := cmd().(answered); ok {
			w.Update(said)
		}
	}
}

// rest lets the list, and the keys, come to rest.
func (w *watched) rest() {
	w.changed, w.pressed = w.changed.Add(-time.Second), w.pressed.Add(-time.Second)
}

func TestKeysDecideOnce(t *testing.T) {
	w := newWatched(t, "one.example", "two.example", "*.wide.example")
	w.keys("a")
	w.keys("ja")
	w.rest()
	if w.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("a"), Paste: true}); w.busy {
		t.Fatal("pasted")
	}
	w.changed = time.Now()
	w.keys("a")
	if len(w.granted) != 0 {
		t.Fatalf("granted right after the list came: %+v", w.granted)
	}
	w.rest()
	w.keys("aaaaaaaaaaaaaaa")
	if len(w.granted) != 1 || w.granted[0].ID != "req-one.example" || w.granted[0].Seen == "" || w.granted[0].Scope != policy.Askers {
		t.Fatalf("held down: %+v", w.granted)
	}
	// What is decided elsewhere leaves its neighbour alone.
	w.has("two.example", "*.wide.example")
	w.keys("a")
	w.rest()
	w.keys("a")
	if len(w.granted) != 1 || !strings.Contains(w.said, "select") {
		t.Fatalf("a neighbour: %+v, %s", w.granted, w.said)
	}
	w.rest()
	w.keys("jjla")
	if len(w.granted) != 1 || !strings.Contains(w.said, "every name below") {
		t.Fatalf("much, by one press: %+v, %s", w.granted, w.said)
	}
	w.rest()
	w.keys("a")
	if len(w.granted) != 2 || w.granted[1].ID != "req-wide.example" || w.granted[1].Scope != policy.ThisLineage {
		t.Fatalf("%+v", w.granted)
	}
	w.rest()
	w.keys("kd")
	if len(w.denied) != 1 || w.denied[0].ID != "req-two.example" {
		t.Fatalf("%+v", w.denied)
	}
	w.proof = policy.Passphrase
	w.rest()
	w.keys("a")
	if len(w.granted) != 2 || !strings.Contains(w.said, "passphrase") {
		t.Errorf("without its proof: %+v, %s", w.granted, w.said)
	}
}

func TestWhatAWatchShows(t *testing.T) {
	w := newWatched(t)
	if !strings.Contains(w.View(), "nothing is asked") {
		t.Error(w.View())
	}
	r := ledger.Request{ID: "req-a", Owner: "me", Subject: "x.example", Reason: "to try \x1b[2J", Held: time.Now().Add(9500 * time.Millisecond), Asked: []ledger.Asker{{Sandbox: "c1"}, {Sandbox: "c2"}}, Count: 3}
	w.show([]manager.Look{{Request: r, Handle: "req-a-x", Usual: time.Hour, Alike: "it looks like another", Opens: "data", Lineage: 9, Refused: 2, Askers: []manager.LookAsker{{Asker: r.Asked[0], Reaches: "nothing yet"}, {Asker: r.Asked[1], Gone: true}}}})
	w.keys("j")
	text := w.View()
	for _, want := range []string{"> x.example   me/c1, c2", "10 s still", "those that asked, c1, c2, for 1h", "CAREFUL: it looks like another", "to try", "c2 is gone", "denied 2 times before"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
	w.keys("l")
	if text := w.View(); !strings.Contains(text, "all 9 of the same lineage") {
		t.Error(text)
	}
	w.width = 20
	if long := slices.ContainsFunc(strings.Split(w.View(), "\n"), func(line string) bool { return len([]rune(line)) > 20 }); long {
		t.Error(fmt.Sprint("too wide: ", w.View()))
	}
}
