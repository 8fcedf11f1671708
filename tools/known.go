package tools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// known is what is known of a call that went on as an operation, in this server or in another.
type known struct {
	tool      string
	started   time.Time
	ended     time.Time // zero while it runs
	result    Result    // once it has ended
	lost      bool      // with its server: no result will come
	broke     bool      // it ended by a fault of ours
	cancelled bool      // somebody asked for its end
}

// over tells whether nothing more is to come of it.
func (k known) over() bool { return k.lost || !k.ended.IsZero() }

// why is what became of one that came to no result.
func (k known) why() string {
	if k.lost {
		return fmt.Sprintf("the server in which %s ran was ended. What was whole by then is there, and what was half-made is removed", k.tool)
	}
	return k.result.Text
}

// lookEvery is how often it is looked what became of an operation of another server.
const lookEvery = 200 * time.Millisecond

// operation waits for one of the caller's until it is over, or for a time, after asking for its end where cancel says so;
// sandbox.ErrNotFound.
func (s Session) operation(ctx context.Context, id string, cancel bool, wait time.Duration) (known, error) {
	if err := s.Manager.Permit(ctx, s.Caller, policy.VerbWait); err != nil {
		return known{}, err
	}
	op := s.Operations.find(s.Caller.Owner, id)
	if op == nil {
		return s.operationElsewhere(ctx, id, cancel, wait)
	}
	if cancel {
		op.end()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-op.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	k := known{tool: op.tool, started: op.started, cancelled: op.cancelled.Load()}
	select {
	case <-op.done:
		k.ended, k.result, k.broke = op.ended, op.result, op.broke
	default:
	}
	return k, nil
}

// operationElsewhere is operation for one of another server, or of one that was ended.
func (s Session) operationElsewhere(ctx context.Context, id string, cancel bool, wait time.Duration) (known, error) {
	owner := s.Caller.Owner
	if cancel {
		_ = s.Manager.CancelOperation(owner, id) // else it is found to be under way
	}
	for late := time.Now().Add(wait); ; {
		o, err := s.Manager.Operation(owner, id)
		if errors.Is(err, ledger.ErrNoOperation) || errors.Is(err, ledger.ErrNone) {
			err = fmt.Errorf("operation %q %w: it ended over an hour ago, or with a server that keeps no records; list_sandboxes shows what there is", id, sandbox.ErrNotFound)
		}
		if err != nil {
			return known{}, err
		}
		k := known{tool: o.Tool, started: o.Started, ended: o.Ended, lost: o.Lost, cancelled: o.Cancel}
		if !o.Ended.IsZero() {
			k.result = Result{Text: o.Text, Failed: o.Result == ""}
			if o.Result != "" {
				k.result.Structured = json.RawMessage(o.Result)
			}
		}
		if k.over() || !time.Now().Before(late) || ctx.Err() != nil {
			return k, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}
