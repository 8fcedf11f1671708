package server

import (
	"sync"
	"time"

	"pixels/policy/ledger"
)

// A dialog that was closed without an answer doesn't come up again in that client for a while; after several in a row none
// does. The requests stay open everywhere else.
const (
	closedFor    = time.Hour
	mostInARow   = 3
	mostDialogs  = 1000 // that are remembered
	anyQuestions = ""
)

// dialogs are what clients were asked and did not answer.
type dialogs struct {
	mu    sync.Mutex
	until map[[2]string]time.Time // by client and request
	inRow map[string]int          // by client
}

func (d *dialogs) closed(client, id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, _ = ledger.ParseHandle(id)
	now := time.Now()
	return now.Before(d.until[[2]string{client, id}]) || now.Before(d.until[[2]string{client, anyQuestions}])
}

// unanswered notes that a question was not answered; shut tells that somebody, or something, closed it.
func (d *dialogs) unanswered(client, id string, shut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil || len(d.until) > mostDialogs {
		d.until, d.inRow = map[[2]string]time.Time{}, map[string]int{}
	}
	until := time.Now().Add(closedFor)
	if id, _ = ledger.ParseHandle(id); shut {
		d.until[[2]string{client, id}] = until
	}
	if d.inRow[client]++; d.inRow[client] >= mostInARow {
		d.until[[2]string{client, anyQuestions}] = until
		d.inRow[client] = 0
	}
}

// opened notes that a page was opened for a question.
func (d *dialogs) opened(client, id string) {
	d.unanswered(client, id, true)
	d.answered(client)
}

func (d *dialogs) answered(client string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inRow, client)
}
