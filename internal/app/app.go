// Package app opens what a process of Pixels works with, keeps up what goes on in the background, and closes it in order.
package app

import (
	"context"
	"fmt"
	"time"

	"pixels/internal/config"
	"pixels/internal/place"
	"pixels/internal/webhook"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

// App is all that a process has open.
type App struct {
	Backend sandbox.Backend
	Policy  *policy.Policy
	Ledger  *ledger.Store
	Manager *manager.Manager
	Door    manager.Door // of the humans

	config config.Config
	say    func(error)
}

// hookTime bounds how long a webhook is told of one request, with its tries.
const hookTime = 20 * time.Second

// Open opens the backend that the configuration names, the policy at a path, and the ledger. Incus need not run yet. say hears
// of a policy that goes bad later, and of records that can't be kept: without a ledger nothing is on record and no human can be
// asked, but sandboxes and their protection need none.
func Open(c config.Config, policyPath string, say func(error)) (*App, error) {
	a := &App{config: c, say: say}
	backend, err := OpenBackend(c)
	if err != nil {
		return nil, err
	}
	a.Backend = backend
	if a.Policy, err = policy.Open(policyPath); err != nil {
		backend.Close()
		return nil, err
	}
	a.Policy.Bad = say
	if a.Ledger, err = OpenLedger(say); err != nil {
		say(fmt.Errorf("nothing is on record, and no human can be asked: %w", err))
		a.Ledger = ledger.Noop()
	}
	a.Ledger.Fresh = a.tell
	d := c.SandboxDefaults()
	d.Policy, d.Store, d.Warn = a.Policy, a.Ledger, say
	a.Manager, a.Door = manager.NewWithDoor(a.Backend, d)
	return a, nil
}

// OpenLedger opens the ledger of this installation.
func OpenLedger(say func(error)) (*ledger.Store, error) {
	path, err := place.Database()
	if err != nil {
		return nil, err
	}
	return ledger.Open(path, say)
}

// tell tells the policy's webhook of a new request.
func (a *App) tell(r ledger.Request) {
	ctx, cancel := context.WithTimeout(context.Background(), hookTime)
	defer cancel()
	if err := webhook.Notify(ctx, a.Policy.Now(), r); err != nil {
		a.say(err)
	}
}

// Close closes all of it. What was in the background must have ended: see KeepUp.
func (a *App) Close() {
	if err := a.Ledger.Close(); err != nil { // first, for it has the last records still to write
		a.say(err)
	}
	a.Backend.Close()
}
