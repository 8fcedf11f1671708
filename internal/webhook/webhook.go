// Package webhook tells a program of the human's, such as a chat service, of the requests that wait for an answer.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"pixels/policy"
	"pixels/policy/ledger"
)

// Notice is what a webhook is told of a request. The link has no token in it.
type Notice struct {
	ID      string        `json:"id"`
	At      time.Time     `json:"at"`
	Owner   string        `json:"owner"`
	Sandbox string        `json:"sandbox"`
	Domain  string        `json:"domain"`
	Source  ledger.Source `json:"source"`
	Reason  string        `json:"reason,omitempty"`  // the agent's words
	Process string        `json:"process,omitempty"` // as the sandbox claims
	Link    string        `json:"link,omitempty"`    // to the page's request, where the policy says where the page is
	Text    string        `json:"text"`              // the same in a sentence, as chat services want it
}

// Bounds of telling a webhook.
const (
	hookTime  = 10 * time.Second
	hookTries = 3
)

// hookPause is the pause before the second try; before the third it is twice as long. Tests shorten it.
var hookPause = time.Second

// Notify tells the policy's webhook, if there is one, of a request. It tries a few times.
func Notify(ctx context.Context, s *policy.Set, r ledger.Request) error {
	to := s.Webhook()
	if to == "" {
		return nil
	}
	n := Notice{ID: r.ID, At: r.At, Owner: r.Owner, Sandbox: r.Sandbox, Domain: r.Subject, Source: r.Source, Reason: r.Reason, Process: r.Process, Link: s.Link(r.ID)}
	n.Text = fmt.Sprintf("Sandbox %s of %s wants to reach %s.", r.Sandbox, r.Owner, r.Subject)
	if r.Reason != "" {
		n.Text += fmt.Sprintf(" The agent says: %q.", r.Reason)
	}
	if n.Link != "" {
		n.Text += " " + n.Link
	}
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		if err = post(ctx, to, body); err == nil || try == hookTries || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(try) * hookPause):
		}
	}
	if err != nil {
		return fmt.Errorf("tell the webhook of request %s: %w", r.ID, err)
	}
	return nil
}

// hooks posts to where it is told to, and follows nobody elsewhere.
var hooks = &http.Client{Timeout: hookTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func post(ctx context.Context, to string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "pixels-mcp")
	answer, err := hooks.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // its address may hold a secret
			err = u.Err
		}
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16))
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("it answers %s", answer.Status)
	}
	return nil
}
