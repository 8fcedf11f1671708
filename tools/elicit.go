package tools

import (
	"context"
	"slices"
	"sync"
	"time"

	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// Human is who may sit at an MCP client, as far as the client says that it can ask them. Each func is nil when it can't.
type Human struct {
	// Choose shows the question of a request, and returns what was chosen. An error, as from a client that gives up, is no answer.
	Choose func(ctx context.Context, q manager.Question) (manager.Choice, error)
	// Again tells that the call was made before, for the answers to its questions to come with this one.
	Again bool
	// Open offers to open an address.
	Open func(ctx context.Context, id, address, why string) error
}

// elicited is how many of a call's requests are put to the human at the client, one after the other.
const elicited = 3

// elicitTime is how long they may take, within a call.
const elicitTime = callLimit - 2*time.Second

// elicit puts the open ones of requests to the human at the client, where the policy has it, and waits for the answers, by
// whatever channel they come, at least for wait. What the client gives up stays open.
func (s Session) elicit(ctx context.Context, requests []ledger.Request, wait time.Duration) ([]ledger.Request, error) {
	if s.Human.Choose == nil && s.Human.Open == nil {
		return s.Manager.Await(ctx, requests, wait)
	}
	start := time.Now()
	asking, cancel := context.WithTimeout(ctx, elicitTime)
	defer cancel()
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()
	ended := make(chan struct{})
	open := slices.Clone(requests)
	asked.Go(func() {
		defer close(ended)
		n := 0
		for _, r := range open {
			if r.State.Ended() || n == elicited || asking.Err() != nil {
				continue
			}
			if s.put(asking, r) {
				n++
			}
		}
	})
	for {
		var err error
		if requests, err = s.Manager.Await(ctx, requests, 200*time.Millisecond); err != nil {
			return requests, err
		}
		if !slices.ContainsFunc(requests, func(r ledger.Request) bool { return !r.State.Ended() }) {
			return requests, nil // decided here or elsewhere: nobody needs to go on asking
		}
		select {
		case <-ended:
			if time.Since(start) >= wait {
				return requests, nil
			}
		default:
		}
	}
}

// put puts one request to the human at the client, and tells whether it did.
func (s Session) put(ctx context.Context, r ledger.Request) bool {
	q := s.Manager.Question(ctx, r)
	switch {
	case len(q.Choices) > 0 && s.Human.Choose != nil:
		if choice, err := s.Human.Choose(ctx, q); err == nil {
			// That another one was first, or that it can't be granted, the request itself shows.
			_ = s.Manager.Chosen(ctx, r, q, choice)
		}
	case q.Link != "" && s.Human.Open != nil:
		_ = s.Human.Open(ctx, q.ID, q.Link, q.Text) // it is opened, which decides nothing
	default:
		return false
	}
	return true
}
