package streams

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"pixels/internal/fault"
	"pixels/internal/view"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

const (
	requestsPath = "/v1/requests"
	recordsPath  = "/v1/records"
)

// handleLedger answers an owner what they asked for, and what is on record about them.
func (s *Server) handleLedger() {
	s.handle("GET "+requestsPath, func(_ context.Context, c manager.Caller, r *http.Request) (any, error) {
		return view.Questions(s.manager, c.Owner, r.FormValue("all") != "")
	})
	s.handle("GET "+requestsPath+"/{id}", func(_ context.Context, c manager.Caller, r *http.Request) (any, error) {
		one, err := s.manager.RequestOf(c.Owner, r.PathValue("id"))
		return view.QuestionOf(s.manager, one), err
	})
	s.handle("GET "+recordsPath, func(_ context.Context, c manager.Caller, r *http.Request) (any, error) {
		var q ledger.Query
		if err := json.Unmarshal([]byte(r.FormValue("query")), &q); err != nil {
			return nil, fault.Errorf(fault.Invalid, fault.Hint{}, "the query can't be read: %v", err)
		}
		return s.manager.RecordsOf(c.Owner, q)
	})
}

// Requests returns the requests of who calls: the open ones, or all.
func (c *Client) Requests(ctx context.Context, all bool) ([]view.Question, error) {
	query := url.Values{}
	if all {
		query.Set("all", "1")
	}
	return get[[]view.Question](ctx, c, requestsPath, query)
}

// Request returns one.
func (c *Client) Request(ctx context.Context, id string) (view.Question, error) {
	return get[view.Question](ctx, c, requestsPath+"/"+url.PathEscape(id), nil)
}

// Records returns what is on record about who calls.
func (c *Client) Records(ctx context.Context, q ledger.Query) ([]ledger.Record, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return get[[]ledger.Record](ctx, c, recordsPath, url.Values{"query": {string(b)}})
}
