package incus

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/lxc/incus/v6/shared/api"
)

// stuckAfter is how long a forced stop takes before its instance is looked at: ten times as long as it takes as a rule.
const stuckAfter = 6 * time.Second

// forceStop ends an instance at once. Incus waits for a hook of liblxc to say that the instance has stopped, for ever where
// the start had failed and no process is there that would ever call it; every deletion then says "Invalid PID". So forceStop
// calls that hook itself.
func forceStop(ctx context.Context, server *daemon, id string) error {
	op, err := server.commit(ctx).UpdateInstanceState(id, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true}, "")
	for err == nil {
		bounded, cancel := context.WithTimeout(ctx, stuckAfter)
		_, err = wait(bounded, server, op)
		over := bounded.Err() != nil
		cancel()
		if !over || ctx.Err() != nil {
			return err
		}
		err = stopHooks(ctx, server, id)
	}
	return err
}

// stopHooks tells Incus that an instance has stopped which has no process, as the hooks of liblxc tell it, and does nothing
// for one that has: internal/server/instance/drivers/driver_lxc.go, OnStopNS and OnStop, of Incus 6.0.4.
func stopHooks(ctx context.Context, server *daemon, id string) error {
	_, _, err := server.with(ctx).GetInstanceState(id)
	if !noProcess(err) {
		return nil
	}
	query := url.Values{"project": {server.project}, "target": {"stop"}, "netns": {""}}.Encode()
	var errs []error
	for _, hook := range []string{"onstopns", "onstop"} {
		_, _, err := server.commit(ctx).RawQuery(http.MethodGet, "/internal/containers/"+url.PathEscape(id)+"/"+hook+"?"+query, nil, "")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
