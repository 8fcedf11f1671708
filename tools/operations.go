package tools

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

// callLimit is how long a call may last; what takes longer goes on as an operation. Clients give up after a minute.
const callLimit = 40 * time.Second

// keptOperations is how many that have ended are kept to be asked for.
const keptOperations = 200

// beatEvery is how often it is put down that an operation goes on, and looked whether it is to end.
const beatEvery = 2 * time.Second

// Operations are the calls that outlasted their answer. They live as long as the server; what became of them is in the ledger for a while,
// whoever asks. What they make is in the backend, and a call that a restart ended is undone or finished as any half-made thing is.
type Operations struct {
	ctx   context.Context // ends them
	limit time.Duration

	working sync.WaitGroup
	mu      sync.Mutex
	byID    map[string]*operation
	order   []string
}

// operation is one of them.
type operation struct {
	owner, tool string
	started     time.Time
	done        chan struct{}
	result      Result // once done
	ended       time.Time
	broke       bool // by a fault of ours
	cancelled   atomic.Bool
	cancel      context.CancelFunc
}

// end ends it, with what it began undone.
func (op *operation) end() {
	op.cancelled.Store(true)
	op.cancel()
}

// NewOperations returns an empty set, whose operations are cancelled when ctx ends.
func NewOperations(ctx context.Context) *Operations {
	return &Operations{ctx: ctx, limit: callLimit, byID: map[string]*operation{}}
}

// Unlimited returns a set in which nothing outlasts its call: for a caller that waits for it however long it takes.
func Unlimited(ctx context.Context) *Operations {
	return &Operations{ctx: ctx, limit: math.MaxInt64, byID: map[string]*operation{}}
}

// undoTime is how long a cancelled call is waited for. It undoes what it began, and goes on to when it takes longer.
const undoTime = 20 * time.Second

// Wait returns when all have ended, or take too long to undo what they began.
func (o *Operations) Wait() {
	ended := make(chan struct{})
	go func() {
		o.working.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(undoTime):
	}
}

// Do does work for a call, and answers its result, or the operation as which it goes on.
func (o *Operations) Do(ctx context.Context, s Session, tool string, work func(context.Context) Result) Result {
	result, id := o.do(ctx, s, tool, work)
	if id == "" {
		return result
	}
	return Result{Structured: map[string]string{"operation": id}, Text: "it is still under way, as the operation " + id, Next: waitCall(id), Operation: id}
}

// do does work for a call. When that ends within the limit it returns its result, else the ID by which to ask for it. When
// the call is cancelled before, so is the work, and do returns when it has ended, or takes too long to.
func (o *Operations) do(ctx context.Context, s Session, tool string, work func(context.Context) Result) (Result, string) {
	mine, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(o.ctx, cancel)
	op := &operation{owner: s.Caller.Owner, tool: tool, started: time.Now(), done: make(chan struct{}), cancel: cancel}
	o.working.Go(func() {
		defer close(op.done)
		defer func() { op.ended = time.Now() }()
		defer cancel()
		defer stop()
		defer func() { // the panic of one call ends no other
			if p := recover(); p != nil {
				fmt.Fprintf(os.Stderr, "%s: panic: %v\n%s", tool, p, debug.Stack())
				op.broke = true
				op.result = failure(s.Audience, fmt.Errorf("%s failed by a fault of Pixels itself (%.200v); the server's log has more", tool, p))
			}
		}()
		op.result = work(mine)
	})
	limit := o.limit
	if s.AsTask {
		limit = min(limit, taskGrace)
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-op.done:
		return op.result, ""
	case <-ctx.Done():
		cancel()
		select {
		case <-op.done:
			return op.result, ""
		case <-time.After(undoTime):
			return failure(s.Audience, fmt.Errorf("%w; what it began is still being undone", ctx.Err())), ""
		}
	case <-late.C:
		id := o.keep(op)
		if s.Hold != nil {
			over, done := s.Hold()
			stop := context.AfterFunc(over, cancel)
			o.working.Go(func() {
				<-op.done
				stop()
				done()
			})
		}
		if s.Manager.BeginOperation(ledger.Operation{ID: id, Owner: op.owner, Tool: tool, Started: op.started}) == nil { // else this process alone knows of it
			o.working.Go(func() { op.attend(o.ctx, s.Manager, id) })
		}
		return Result{}, id
	}
}

// attend keeps the ledger up to date about an operation until it has ended.
func (op *operation) attend(server context.Context, m *manager.Manager, id string) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if cancel, _ := m.BeatOperation(id); cancel {
				op.end()
			}
		case <-op.done:
			result := ""
			if op.result.Structured != nil {
				b, err := json.Marshal(op.result.Structured)
				if err == nil && len(b) <= maxAnswer {
					result = string(b)
				}
			}
			text := op.result.Text
			if server.Err() != nil && op.result.Failed {
				text = "the server in which it ran was ended, and what it had begun was undone: list_sandboxes shows what there is (" + text + ")"
			}
			_ = m.EndOperation(id, result, text)
			return
		}
	}
}

// maxAnswer bounds what of an answer is kept.
const maxAnswer = 1 << 20

// keep makes an operation known under an ID, and forgets the oldest that have ended.
func (o *Operations) keep(op *operation) string {
	id := "op-" + strings.ToLower(rand.Text()[:12])
	o.mu.Lock()
	defer o.mu.Unlock()
	o.byID[id] = op
	o.order = append(o.order, id)
	for i := 0; len(o.order) > keptOperations && i < len(o.order); {
		select {
		case <-o.byID[o.order[i]].done:
			delete(o.byID, o.order[i])
			o.order = append(o.order[:i], o.order[i+1:]...)
		default:
			i++
		}
	}
	return id
}

// find returns an operation of an owner, or nil.
func (o *Operations) find(owner, id string) *operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	op := o.byID[id]
	if op == nil || op.owner != owner {
		return nil
	}
	return op
}
