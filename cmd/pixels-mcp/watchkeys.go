package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"pixels/internal/plain"
	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// settleTime is for how long no key decides after the list changed: it may be another request that is selected now. A key
// that comes again sooner is one that is held down.
const settleTime = 700 * time.Millisecond

// watching shows the open requests on a terminal, and takes answers by keys.
type watching struct {
	load  func() ([]manager.Look, error)
	heavy func(manager.Approval) (string, error)
	yes   func(manager.Approval) (manager.Approved, error)
	no    func(manager.Approval) (ledger.Request, error)
	by    string
	proof policy.Approval

	looks   []manager.Look
	at      string // ID of the one that is selected; none when it went
	lineage bool   // the answer is for the whole lineage
	sure    string // what the next a says yes to once more
	said    string
	changed time.Time // the list
	key     string
	pressed time.Time
	width   int
	busy    bool
}

type (
	loaded struct {
		looks []manager.Look
		err   error
	}
	answered string
)

func (w *watching) read() tea.Msg {
	looks, err := w.load()
	return loaded{looks, err}
}

// Init implements tea.Model.
func (w *watching) Init() tea.Cmd { return w.read }

// Update implements tea.Model.
func (w *watching) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case tea.WindowSizeMsg:
		w.width = m.Width
	case loaded:
		if m.err != nil {
			w.said = view.Error(m.err, view.Terminal)
		} else {
			w.show(m.looks)
		}
		return w, tea.Tick(watchRequests, func(time.Time) tea.Msg { return w.read() })
	case answered:
		w.said, w.busy = string(m), false
	case tea.KeyMsg:
		if m.Type != tea.KeyRunes {
			return w, w.press(m.String())
		}
		if m.Paste {
			return w, nil
		}
		var all []tea.Cmd
		for _, key := range m.Runes { // several that came at once
			all = append(all, w.press(string(key)))
		}
		return w, tea.Batch(all...)
	}
	return w, nil
}

// show takes over what is open now. The selection goes to no request by itself.
func (w *watching) show(looks []manager.Look) {
	handles := func(list []manager.Look) (out []string) {
		for _, l := range list {
			out = append(out, l.Handle)
		}
		return out
	}
	if !slices.Equal(handles(looks), handles(w.looks)) {
		w.changed, w.sure = time.Now(), ""
	}
	w.looks = looks
	if w.index() < 0 {
		w.at, w.lineage = "", false
	}
}

func (w *watching) index() int {
	return slices.IndexFunc(w.looks, func(l manager.Look) bool { return l.ID == w.at })
}

func (w *watching) press(key string) tea.Cmd {
	now := time.Now()
	held := key == w.key && now.Sub(w.pressed) < settleTime
	w.key, w.pressed = key, now
	switch key {
	case "q", "ctrl+c", "esc":
		return tea.Quit
	case "j", "down", "k", "up":
		step := map[string]int{"j": 1, "down": 1, "k": -1, "up": -1}[key]
		if len(w.looks) > 0 {
			w.at = w.looks[min(max(w.index()+step, 0), len(w.looks)-1)].ID
			w.lineage, w.sure, w.said = false, "", ""
		}
	case "l":
		w.lineage, w.sure = !w.lineage && w.index() >= 0, ""
	case "a", "d":
		return w.decide(key == "a", held, now)
	}
	return nil
}

func (w *watching) decide(yes, held bool, now time.Time) tea.Cmd {
	i := w.index()
	switch {
	case held || w.busy:
		return nil
	case i < 0:
		w.said = "select a request first, with j and k"
		return nil
	case now.Sub(w.changed) < settleTime:
		w.said = "the list has just changed: look at it, and press again"
		return nil
	}
	look := w.looks[i]
	id, seen := ledger.ParseHandle(look.Handle)
	a := manager.Approval{ID: id, Seen: seen, By: w.by, Scope: policy.Askers}
	if w.lineage {
		a.Scope = policy.ThisLineage
	}
	w.busy = true
	if !yes {
		return func() tea.Msg {
			r, err := w.no(a)
			if err != nil {
				return answered(view.Error(err, view.Terminal))
			}
			return answered(r.Subject + " is denied")
		}
	}
	if w.proof != policy.Terminal {
		w.busy = false
		w.said = fmt.Sprintf("the policy asks for a %s: approve it with `"+program.Name+" requests approve %s`, or on the page", w.proof, look.Handle)
		return nil
	}
	heavy, err := w.heavy(a)
	if err != nil || heavy != w.sure {
		w.busy = false
		if w.sure = heavy; err != nil {
			w.said = view.Error(err, view.Terminal)
			return nil
		}
	}
	if !w.busy && heavy != "" {
		w.said = fmt.Sprintf("press a again for %s: %s", look.Subject, heavy)
		return nil
	}
	w.busy, w.sure = true, ""
	return func() tea.Msg {
		got, err := w.yes(a)
		if err != nil {
			return answered(view.Error(err, view.Terminal))
		}
		return answered(fmt.Sprintf("%s is in reach of %s until %s", got.Subject, view.Reached(got, view.Terminal), view.Moment(got.Until)))
	}
}

// View implements tea.Model.
func (w *watching) View() string {
	var b strings.Builder
	line := func(format string, args ...any) {
		text := plain.Text(fmt.Sprintf(format, args...))
		if runes := []rune(text); w.width > 1 && len(runes) > w.width {
			text = string(runes[:w.width-1]) + "…"
		}
		b.WriteString(text + "\n")
	}
	line("%s   j k select   l whole lineage   a approve   d deny   q quit", map[bool]string{true: "nothing is asked", false: fmt.Sprintf("%d asked", len(w.looks))}[len(w.looks) == 0])
	line("")
	for _, l := range w.looks {
		mark := "  "
		if l.ID == w.at {
			mark = "> "
		}
		line("%s%s   %s%s", mark, l.Subject, view.WhoAsks(l.Request), heldFor(l))
		if l.ID == w.at {
			w.details(line, l)
		}
	}
	if w.said != "" {
		line("")
		line("%s", w.said)
	}
	return b.String()
}

// details are what is shown of the request that is selected.
func (w *watching) details(line func(string, ...any), l manager.Look) {
	scope := "those that asked, " + strings.Join(l.Names(), ", ")
	if w.lineage {
		scope = fmt.Sprintf("all %d of the same lineage, and their clones", l.Lineage)
	}
	line("    a yes is for %s, for %s", scope, units.Duration(l.Usual))
	if l.Display != "" {
		line("    in letters: %s", l.Display)
	}
	if l.Alike != "" {
		line("    CAREFUL: %s", l.Alike)
	}
	line("    %s", view.Why(l.Request))
	if l.Reason != "" && l.Process != "" {
		line("    process, as the sandbox says: %s", l.Process)
	}
	for _, a := range l.Askers {
		switch {
		case a.Gone:
			line("    %s is gone", a.Sandbox)
		default:
			line("    %s made %s ago, reaches %s", strings.Join(append([]string{a.Sandbox}, a.Labels...), " "), view.Ago(a.Born), a.Reaches)
		}
	}
	line("    it opens: %s", l.Opens)
	asked := fmt.Sprintf("asked %s ago", view.Ago(l.At))
	if l.Count > 1 {
		asked += fmt.Sprintf(", %d times", l.Count)
	}
	if l.Refused > 0 {
		asked += fmt.Sprintf("; denied %d times before", l.Refused)
	}
	line("    %s", asked)
}

// heldFor says for how long a connection waits still.
func heldFor(l manager.Look) string {
	switch left := time.Until(l.Held); {
	case l.Held.IsZero():
		return ""
	case left <= 0:
		return "   its connection has failed: after a yes the agent must try again"
	default:
		return fmt.Sprintf("   a connection waits, %d s still", int(left.Seconds())+1)
	}
}

// watchKeys shows requests on a terminal until q is pressed or ctx ends.
func (a *cli) watchKeys(ctx context.Context, m *manager.Human, owner string, in io.Reader) error {
	w := &watching{
		by: a.by(), proof: m.Approval(),
		load: func() ([]manager.Look, error) {
			list, err := m.Requests(owner, 200, ledger.RequestOpen, ledger.RequestGranting)
			if err != nil {
				return nil, err
			}
			return m.Looks(ctx, list)
		},
		heavy: func(a manager.Approval) (string, error) { return m.Weight(ctx, a) },
		yes:   func(a manager.Approval) (manager.Approved, error) { return m.Approve(ctx, a) },
		no:    func(a manager.Approval) (ledger.Request, error) { return m.Refuse(ctx, a) },
	}
	_, err := tea.NewProgram(w, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(a.raw), tea.WithAltScreen(), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}
