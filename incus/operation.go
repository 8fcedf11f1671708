package incus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/sandbox"
)

// wait waits until an operation or ctx ends, and fails as the operation did. It asks the server in short turns: the
// client's own wait notices no cancellation without an event listener, and then changes the transport that all calls share.
func wait(ctx context.Context, server *daemon, op client.Operation) (*api.Operation, error) {
	id := op.Get().ID
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// It fails when the second is over, which is no failure of the operation.
		started := time.Now()
		answer, _, waitErr := server.with(ctx).RawQuery(http.MethodGet, "/1.0/operations/"+id+"/wait?timeout=1", nil, "")
		now := &api.Operation{}
		if late := (noAnswer{}); errors.As(waitErr, &late) {
			return nil, waitErr
		}
		if waitErr != nil || answer.MetadataAsStruct(now) != nil {
			var err error
			if now, _, err = server.with(ctx).GetOperation(id); err != nil {
				return nil, errors.Join(err, waitErr)
			}
		}
		if now.StatusCode.IsFinal() {
			if now.Err != "" {
				return now, operationError(now.Err)
			}
			return now, nil
		}
		if waitErr != nil && time.Since(started) < 500*time.Millisecond {
			return nil, waitErr
		}
	}
}

// finish waits to the operation's end even when ctx ends before, because what is given up half-way stays half-made, and
// then returns ctx's error with what became of the operation. The extra time is bounded.
func finish(ctx context.Context, server *daemon, op client.Operation, err error) (*api.Operation, error) {
	if err != nil {
		return nil, err
	}
	ended, err := wait(ctx, server, op)
	if ctx.Err() == nil {
		return ended, err
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	ended, _ = wait(late, server, op)
	return ended, ctx.Err()
}

// removeTimeout bounds how long a removal is repeated. Incus refuses it while the instance is busy: being created, being
// started again by an incusd that came back.
const removeTimeout = 30 * time.Second

// remove ends and deletes an instance with its snapshots. It repeats until the instance is gone, and returns
// sandbox.ErrNotFound when it was not there to begin with.
func remove(ctx context.Context, server *daemon, id string) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	var last error
	for try := 0; ; try++ {
		inst, _, err := server.with(ctx).GetInstance(id)
		switch {
		case missing(err) && try == 0:
			return fault.About(sandbox.ErrNotFound, fmt.Sprintf("instance %s", id), "")
		case missing(err):
			return nil
		case err != nil:
			return fmt.Errorf("delete instance %s: %w", id, err)
		}
		if inst.StatusCode != api.Stopped {
			// Its failure says that the instance isn't running or can't be stopped; the deletion tells which.
			_ = forceStop(ctx, server, id)
		}
		op, err := server.commit(ctx).DeleteInstance(id)
		if err == nil {
			_, err = wait(ctx, server, op)
		}
		if err == nil {
			return nil
		}
		// What it says is no proof, "not found" neither: the next turn looks whether it is gone.
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if last == nil {
				last = ctx.Err()
			}
			return fmt.Errorf("delete instance %s: %w", id, last)
		case <-time.After(min(time.Duration(try+1)*50*time.Millisecond, time.Second)):
		}
	}
}

// unreachable turns a failure to talk with Incus into ErrUnreachable with what to do, and leaves any other error.
func (c Config) unreachable(err error) error {
	var dial *net.OpError
	var call *url.Error
	var late noAnswer
	switch {
	case errors.Is(err, ErrUnreachable): // it says that already, and what else there is to say
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded): // the caller's patience ended, which says nothing of Incus
		return err
	case errors.As(err, &late):
		err = late
	case errors.As(err, &dial):
		err = dial
	case errors.As(err, &call):
		err = call.Err // without the address of the call, which says nothing to anyone
	default:
		return err
	}
	if noRight(err) {
		return fault.With(fmt.Errorf("%w: this user may not use Incus (%w)", sandbox.ErrUnavailable, err), fault.Hint{Action: fault.JoinIncus})
	}
	return fault.With(fmt.Errorf("%w (%w)", ErrUnreachable, err), fault.Hint{Action: fault.LookAtIncus})
}
