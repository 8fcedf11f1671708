package manager

import (
	"context"
	"time"

	"pixels/policy"
	"pixels/sandbox"
)

// touchEvery is how often a call that lasts tells that its sandbox is used.
const touchEvery = time.Minute

// use begins the use of a sandbox by a call: it wakes one that sleeps, which is vetted as a start is, and tells that it is used until
// done is called.
func (c *call) use(ctx context.Context, b *permit, s sandbox.Sandbox) (done func(), err error) {
	asleep := s.Asleep
	if !asleep && s.State == sandbox.Running {
		if asleep, err = b.Touch(ctx, s.ID); err != nil {
			return nil, err
		}
	}
	if asleep {
		if _, err := c.vet(ctx, policy.Call{Verb: policy.VerbSetSandboxState, Owner: c.Owner, Sandbox: s.Name}); err != nil {
			return nil, err
		}
		if err := b.on(ctx, s, func(id string) error { return b.Wake(ctx, id) }); err != nil {
			return nil, err
		}
		if c.Woken != nil {
			c.Woken(s.Name)
		}
	}
	over := make(chan struct{})
	go func() {
		tick := time.NewTicker(touchEvery)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				_, _ = b.Touch(context.WithoutCancel(ctx), s.ID) // the next one is soon
			}
		}
	}()
	return func() { close(over) }, nil
}
