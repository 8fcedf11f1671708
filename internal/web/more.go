package web

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

type sandboxesPage struct {
	page
	Lineages []lineage
}

// lineage is a sandbox with what was made of it.
type lineage struct {
	Owner, First string
	Boxes        []sandbox.Sandbox
}

func (s *Server) showSandboxes(w http.ResponseWriter, r *http.Request, _ *session) {
	p := sandboxesPage{page: page{Title: "Sandboxes"}}
	p.Open = s.open()
	boxes, err := s.human.Everybodys(r.Context())
	if err != nil {
		s.failed(w, &p.page, err)
		return
	}
	at := map[string]int{}
	for _, b := range boxes {
		key := b.Owner + " " + b.Lineage
		i, ok := at[key]
		if !ok {
			i = len(p.Lineages)
			at[key] = i
			p.Lineages = append(p.Lineages, lineage{Owner: b.Owner, First: b.Name})
		}
		p.Lineages[i].Boxes = append(p.Lineages[i].Boxes, b)
	}
	name := "sandboxes.html"
	if r.FormValue("part") != "" {
		name = "lineages"
	}
	s.render(w, http.StatusOK, name, p)
}

// open counts the requests that wait.
func (s *Server) open() int {
	list, err := s.human.Requests("", 0, ledger.RequestOpen, ledger.RequestGranting)
	if err != nil {
		return 0
	}
	return len(list)
}

func (s *Server) panic(w http.ResponseWriter, r *http.Request, _ *session) {
	names, err := s.human.Panic(r.Context(), r.PostFormValue("owner"), r.PostFormValue("name"), r.PostFormValue("lineage") != "")
	s.answer(w, "Cut off: "+strings.Join(names, ", ")+". The egress is none until somebody sets it again.", err)
}

type auditPage struct {
	page
	Query    ledger.Query
	Since    string
	Limit    int
	Kinds    []ledger.Kind
	Verdicts []string
	Records  []ledger.Record
}

// shownRecords is how many lines of the record are shown.
const shownRecords = 300

func (s *Server) showAudit(w http.ResponseWriter, r *http.Request, _ *session) {
	p := auditPage{page: page{Title: "Record"}, Kinds: ledger.Kinds, Verdicts: ledger.Verdicts, Since: r.FormValue("since"), Limit: shownRecords}
	p.Open = s.open()
	p.Query = ledger.Query{
		Kind: ledger.Kind(r.FormValue("kind")), Owner: r.FormValue("owner"), Sandbox: r.FormValue("sandbox"), Verdict: r.FormValue("verdict"),
		Call: r.FormValue("call"), Text: r.FormValue("text"), Limit: shownRecords,
	}
	if p.Since != "" {
		d, err := units.ParseDuration(p.Since)
		if err != nil {
			p.Wrong = "Since: " + err.Error()
		}
		p.Query.Since = time.Now().Add(-d)
	}
	if p.Query.Verdict != "" && !slices.Contains(ledger.Verdicts, p.Query.Verdict) {
		p.Wrong = fmt.Sprintf("The verdict %q is unknown.", p.Query.Verdict)
	}
	var err error
	if p.Records, err = s.human.Records(p.Query); err != nil {
		s.failed(w, &p.page, err)
		return
	}
	slices.Reverse(p.Records) // the latest first
	s.render(w, http.StatusOK, "audit.html", p)
}

// How often it is looked whether a request changed, how often a browser hears that it is still heard, and for how long it
// counts as there after a word from it.
const (
	lookEvery  = 200 * time.Millisecond
	beatEvery  = 5 * time.Second
	presentFor = 15 * time.Second
)

// events is a stream that says whenever requests change. While it is open a human counts as there: connections are held
// for an answer.
func (s *Server) events(w http.ResponseWriter, r *http.Request, _ *session) {
	leave, err := s.human.Present(r.Context(), fmt.Sprintf("web-%d-%s", os.Getpid(), rand.Text()[:8]), presentFor)
	if err != nil {
		s.log(err)
		http.Error(w, view.Error(err, view.Page), http.StatusServiceUnavailable)
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	stream := http.NewResponseController(w)
	_ = stream.SetReadDeadline(time.Time{}) // it is as long as the page is open
	_ = stream.SetWriteDeadline(time.Time{})
	last, beat := "", time.Now()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		now, err := s.human.RequestsVersion()
		switch {
		case err != nil:
			s.log(err)
			return
		case now != last:
			_, err = fmt.Fprintf(w, "event: requests\ndata: %s\n\n", strconv.Quote(now))
			last = now
		case time.Since(beat) > beatEvery:
			_, err = fmt.Fprint(w, ": still here\n\n")
			beat = time.Now()
		}
		if err == nil {
			err = stream.Flush()
		}
		if err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}
